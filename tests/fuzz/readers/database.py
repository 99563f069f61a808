"""The file by which an output folder remembers its database, and the URL in it."""

import json

from pipeline.metadata import database
from tests.fuzz.reader import Reader, refused, scratch

FOLDER = scratch()
RECORD = {"metadata": "mysql://me@host:3306/runs", "folder": "0a1b2c3d", "password_file": None}


def reader() -> Reader:
    seeds = [RECORD, {**RECORD, "metadata": 5}, {**RECORD, "password_file": "/x"}, [], "text"]
    return Reader(check, [json.dumps(seed).encode() for seed in seeds])


def check(data: bytes) -> None:
    (FOLDER / database.FILE_NAME).write_bytes(data)
    try:
        found = database.remembered(FOLDER)
        assert found is not None
        assert database.parse(str(found)) == database.parse(str(database.parse(str(found))))
    except ValueError as error:
        refused(error)
