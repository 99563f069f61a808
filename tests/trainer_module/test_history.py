import json

import pandas
import pytest

from examples import HISTORY
from trainer_module.history import EpochRecord, History, read, write


def test_reads_what_it_wrote(tmp_path):
    write(HISTORY, tmp_path / "h.jsonl")
    assert read(tmp_path / "h.jsonl") == HISTORY
    assert [path.name for path in tmp_path.iterdir()] == ["h.jsonl"]


def test_reads_a_file_of_version_0_1(tmp_path):
    write(HISTORY, tmp_path / "h.jsonl")
    text = (tmp_path / "h.jsonl").read_text()
    for new, old in (
        ("update_noise", "noise_scale"),
        ("simple_noise_scale", "gradient_noise"),
        ("batch_increase", "grow_batch"),
    ):
        assert f'"{new}"' in text
        text = text.replace(f'"{new}"', f'"{old}"')
    (tmp_path / "h.jsonl").write_text(text)
    assert read(tmp_path / "h.jsonl") == HISTORY


def test_a_history_is_plain_values_and_a_table():
    values = json.loads(json.dumps(HISTORY.to_dict()))
    epochs = tuple(EpochRecord(**epoch) for epoch in values.pop("epochs"))
    assert History(**values, epochs=epochs) == HISTORY
    table = pandas.DataFrame(HISTORY.rows())
    assert table["val_accuracy"].tolist() == [r.metrics["val_accuracy"] for r in HISTORY.epochs]
    assert table.set_index("epoch")["action"].to_dict() == {
        1: "none",
        2: "none",
        3: "batch_increase",
    }


def test_best_and_decisions():
    assert HISTORY.best.epoch == 2
    assert [r.epoch for r in HISTORY.decisions] == [3]
    assert History({}, "loss", "min").best is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}\n{}\n",
        "not json\n",
        '{"format": "plateau-training-history", "version": 9}\n{}\n',
        '{"format": "%s", "version": 1}\n{}\n' % ("x" * 9000),
        "[" * 100_000 + "\n{}\n",
        "[]\n[]\n",
        "null\nnull\n",
        "1" * 5000,
    ],
    ids=[
        "empty",
        "no header",
        "text",
        "version",
        "long",
        "deep",
        "lists",
        "nulls",
        "a long number",
    ],
)
def test_refuses_other_files(tmp_path, text):
    path = tmp_path / "h.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match="training history must be") as error:
        read(path)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"epoch": 2', '"epoch": "two"'),
        ('"epoch": 2', '"epoch": 2, "more": 1'),
        (', "updates": 20', ""),
        ('"metrics": {"accuracy": 0.4', '"metrics": {"accuracy": "<script>"'),
        ('"reason": ""', '"reason": ["x"]'),
        ('"monitor": "val_accuracy"', '"monitor": {}'),
        ('"traces": {"train_step": 1}', '"traces": 7'),
    ],
)
def test_refuses_values_of_other_types(tmp_path, old, new):
    path = tmp_path / "h.jsonl"
    write(HISTORY, path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=r"training history must be .*Train again"):
        read(path)


def test_a_history_has_a_bound(tmp_path):
    with (tmp_path / "h.jsonl").open("wb") as file:
        file.truncate(2**34)
    with pytest.raises(ValueError, match="more than 268,435,456 bytes"):
        read(tmp_path / "h.jsonl")
