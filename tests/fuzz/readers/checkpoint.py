"""A checkpoint, which may be damaged."""

import io
import json
import zipfile

import numpy as np

from tests.fuzz.reader import Reader, refused, scratch
from trainer_module.training.checkpoint import Checkpoints, Snapshot

FOLDER = scratch()
FILES = ("epoch-000001.npz", "best-000001.npz")
SNAPSHOT = Snapshot(1, (np.ones((2, 3), np.float32),), (np.array(7), np.zeros(3, np.float32)))


def reader() -> Reader:
    Checkpoints(FOLDER, "mine").save(SNAPSHOT, SNAPSHOT, {"seconds": 1.5})
    whole = (FOLDER / FILES[0]).read_bytes()
    seeds = [
        whole,
        whole[:200],
        archive(json.dumps({"epoch": 1})),
        archive("[[[["),
        archive("{}", {"model-0.npy": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'shape': (1,)}"}),
    ]
    return Reader(check, seeds, memory=2048)


def archive(header: str, entries: dict[str, bytes] | None = None) -> bytes:
    found = io.BytesIO()
    np.savez(found, header=np.frombuffer(header.encode(), np.uint8))
    with zipfile.ZipFile(found, "a") as file:
        for name, content in (entries or {}).items():
            file.writestr(name, content)
    return found.getvalue()


def check(data: bytes) -> None:
    for name in FILES:
        (FOLDER / name).write_bytes(data)
    try:
        found = Checkpoints(FOLDER, "mine").load()
    except ValueError as error:
        refused(error)
        return
    if found is not None:
        latest, best, state = found
        assert isinstance(latest, Snapshot)
        assert isinstance(best, Snapshot)
        assert isinstance(state, dict)
