"""The history of a training run."""

import json

from tests.fuzz.reader import Reader, refused, scratch
from trainer_module import history

FILE = scratch() / history.FILE_NAME
RECORD = history.EpochRecord(
    1, {"loss": 0.5, "val_loss": float("nan")}, 0.1, 8, 1.5, None, 4, 32, 0.5, "none", "", True
)


def reader() -> Reader:
    whole = history.History({"a": 1}, "val_loss", "min", (RECORD, RECORD), "done", {"step": 1})
    history.write(whole, FILE)
    text = FILE.read_text()
    header = text.splitlines()[0]
    seeds = [text, header + "\n{}\n", "[[[[\n{}\n", text.replace("32", "1e999"), ""]
    return Reader(check, [seed.encode() for seed in seeds])


def check(data: bytes) -> None:
    FILE.write_bytes(data)
    try:
        found = history.read(FILE)
    except ValueError as error:
        refused(error)
        return
    assert all(isinstance(record, history.EpochRecord) for record in found.epochs)
    assert found.best in (None, *found.epochs)
    assert len(found.decisions) <= len(found.epochs)
    history.write(found, FILE)
    # As text, since NaN differs from itself.
    assert json.dumps(FILE.read_text()) == json.dumps(written_again(FILE))


def written_again(file: object) -> str:
    history.write(history.read(FILE), FILE)
    return FILE.read_text()
