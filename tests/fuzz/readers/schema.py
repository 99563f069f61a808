"""A schema, TFMD's text format."""

import schemas
from pipeline.data import csv_check
from tests.fuzz.reader import Reader, refused, scratch

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
        found = csv_check.values(FILE, "label")
        csv_check.check_classes("data", found, FILE)
    except csv_check.SchemaError as error:
        refused(error, longest=100_000)
