"""A schema, TFMD's text format."""

import schemas
from pipeline.data import schema
from tests.fuzz.reader import Reader, refused, scratch
from trainer_module.util.checks import UserError

FILE = scratch() / "schema.pbtxt"


def reader() -> Reader:
    taxi = schemas.committed("taxi")
    assert taxi is not None
    seeds = [
        taxi.read_bytes(),
        b'feature { name: "label" type: BYTES domain: "label" presence { min_fraction: 1 } }',
        b'string_domain { name: "label" value: "yes" value: "\\377" }',
        b"feature { struct_domain { " * 40,
        b'feature { name: "a" int_domain { min: 99999999999999999999 } }',
    ]
    return Reader(check, seeds)


def check(data: bytes) -> None:
    FILE.write_bytes(data)
    try:
        schema.check_classes("data", schema.labels(FILE), FILE)
    except UserError as error:
        refused(error, longest=100_000)
