import json
from pathlib import Path

import pytest

import schemas
from components import known_classes
from components.gate import GateError
from components.known_classes import Known

PETS = Known("images", ("cat", "dog"))
TABLE = Known("table", ("no", "yes"))
PRICE = Known("table", (), "price", "regression")


def model(folder: Path, known: Known | None) -> Path:
    file = folder / schemas.CLASSES_FILE
    file.parent.mkdir(parents=True)
    if known is not None:
        file.write_text(json.dumps(known._asdict()))
    return folder


@pytest.mark.parametrize(
    ("old", "new", "plain", "allowed"),
    [
        (PETS, PETS, True, True),
        (PETS, Known("images", ("dog", "cat")), True, True),
        (PETS, Known("images", ("cat", "dog", "owl")), False, True),
        (Known("images", ("cat", "dog", "owl")), PETS, False, True),
        (PETS, Known("images", ("car", "bus")), False, True),
        (None, PETS, False, True),
        (None, TABLE, False, True),
        (TABLE, TABLE, True, True),
        (TABLE, Known("table", ("yes", "no")), False, False),
        (TABLE, Known("table", ("no", "yes", "maybe")), False, False),
        (PETS, Known("table", ("cat", "dog")), False, False),
        (TABLE, PETS, False, False),
        (PRICE, PRICE, True, True),
        (PRICE, Known("table", (), "size", "regression"), False, False),
        (PRICE, TABLE, False, False),
        (TABLE, PRICE, False, False),
    ],
)
def test_which_models_may_take_the_place_of_which(
    tmp_path: Path, old: Known | None, new: Known, plain: bool, allowed: bool
) -> None:
    folder = model(tmp_path, old)
    assert known_classes.read(folder) == old
    for allow_change, passes in ((False, plain), (True, allowed)):
        if passes:
            known_classes.check(folder, new, allow_change=allow_change)
            continue
        with pytest.raises(GateError, match="knows the same classes") as error:
            known_classes.check(folder, new, allow_change=allow_change)
        assert ("`allow_class_change`" in str(error.value)) is allowed
        assert "push to another folder" in str(error.value)
        assert str(new) in str(error.value)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "[" * 100_000, '{"kind": "images", "classes": 3}'],
    ids=["empty", "list", "nothing", "nested", "no list"],
)
def test_a_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    folder = model(tmp_path, PETS)
    (folder / schemas.CLASSES_FILE).write_text(content)
    with pytest.raises(ValueError, match=r"must be a readable assets.extra/classes.json .*, got"):
        known_classes.read(folder)


def test_many_classes_are_cut_short(tmp_path: Path) -> None:
    folder = model(tmp_path, Known("images", tuple(f"c{n}" for n in range(1000))))
    with pytest.raises(GateError) as error:
        known_classes.check(folder, PETS, allow_change=False)
    assert "'c9' and 990 more" in str(error.value)
    assert len(str(error.value)) < 1000
