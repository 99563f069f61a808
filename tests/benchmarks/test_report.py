import json
import math

import pytest

from benchmarks import report
from benchmarks.report import Result, Row, ratios

ROWS = [
    Row("net", "fit", (1.0, 1.5, 1.2), "at least", 1.1, "best: 8"),
    Row("rss", "small", (1.5,), "at most", 1.2),
    Row("other", "x", (2.0,)),
]


def test_table_tells_median_range_target_and_verdict():
    lines = report.table(ROWS).splitlines()[2:]
    assert lines == [
        "| net | fit | 1.20 (1.00 to 1.50) | 3 | at least 1.1 | yes | best: 8 |",
        "| rss | small | 1.50 (1.50 to 1.50) | 1 | at most 1.2 | **no** |  |",
        "| other | x | 2.00 (2.00 to 2.00) | 1 |  |  |  |",
    ]


def test_page_keeps_the_parts_written_before(tmp_path, hardware):
    report.write(Result("memory", "How.", ROWS[1:2]), tmp_path, hardware, quick=False)
    report.write(Result("speed", "So.", ROWS[:1], figure="a.png"), tmp_path, hardware, quick=True)
    page = (tmp_path / "README.md").read_text()
    speed, memory = page.index("## Images a second"), page.index("## Memory")
    assert speed < memory
    assert "a.png" in page and "avx2" in page and "2026-01-02" in page
    assert page.count("no evidence") == 1
    assert speed < page.index("no evidence") < memory


def test_what_a_reader_must_know_of_the_machine_is_told(hardware):
    assert report.hardware_line(hardware).endswith("TFX 1.")
    assert report.hardware_line({**hardware, "note": "Busy."}).endswith("TFX 1. Busy.")


def test_json_holds_every_value_and_the_verdict(tmp_path, hardware):
    report.write(Result("speed", "So.", ROWS, {"x": 1}), tmp_path, hardware, quick=False)
    data = json.loads((tmp_path / "speed.json").read_text())
    assert [row["reached"] for row in data["rows"]] == [True, False, None]
    assert data["rows"][0]["values"] == [1.0, 1.5, 1.2]
    assert data["details"] == {"x": 1} and data["hardware"]["cores"] == 2


@pytest.mark.parametrize(
    ("sense", "target", "reached"),
    [
        ("at least", 1.5, True),
        ("at least", 1.6, False),
        ("at most", 1.5, True),
        ("at most", 1.4, False),
        ("at most", None, None),
    ],
)
def test_the_median_decides_in_either_sense(sense, target, reached):
    assert Row("a", "b", (0.5, 1.5, 2.0), sense, target).reached is reached


def test_a_value_that_is_not_a_number_reaches_no_target():
    assert Row("a", "b", (math.nan,), "at least", 0.0).reached is False


def test_an_empty_row_is_refused():
    with pytest.raises(ValueError, match="must hold values"):
        Row("a", "b", ())


def test_ratios_are_taken_within_a_turn():
    assert ratios([2.0, 9.0], [1.0, 3.0]) == (2.0, 3.0)
    with pytest.raises(ValueError):
        ratios([1.0], [1.0, 2.0])


def test_the_machine_is_the_first_processor_with_its_vector_extensions(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "model name\t: Some CPU @ 2.00GHz\nflags\t\t: fpu avx2 avx512f amx_bf16x amx_tile\n\n"
        "model name\t: Another\n"
    )
    machine = report.machine(cpuinfo)
    assert machine["processor"] == "Some CPU @ 2.00GHz"
    assert machine["extensions"] == ["avx2", "avx512f", "amx_tile"]
    other = report.machine(tmp_path / "none")
    assert other["processor"] and other["extensions"] == [] and other["cores"] >= 1
