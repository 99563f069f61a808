from datetime import datetime, timedelta

import pytest

from benchmarks import pipeline
from benchmarks.pipeline import BEFORE, OWN, RECORDS, REST, SMALLEST, Round, Timing
from pipeline.metadata.store import Execution, PipelineRun

START = datetime(2026, 1, 2, 3, 4, 5)
OURS = {"ExampleGen": 1.0, "DriftGate": 0.5, "Trainer": 4.0, "Servable": 1.5}
THEIRS = {RECORDS: 0.5, "ExampleGen": 1.5, "Trainer": 6.0}


def run(*steps: tuple[str, float], after: float) -> PipelineRun:
    """A run whose components follow one another from some seconds after START."""
    executions = []
    for i, (name, seconds) in enumerate(steps):
        began = START + timedelta(seconds=after)
        executions.append(Execution(i, name, "complete", began, seconds, component=name))
        after += seconds
    return PipelineRun("a", START, "p", tuple(executions))


def rounds(own: float = 12.0, smallest: float = 16.0) -> list[Round]:
    """A turn of three alike runs each, two seconds of which are imports."""
    ours = Timing(own, 2.0, OURS, cpu=9.0)
    theirs = Timing(smallest, 2.0, THEIRS, cpu=6.0)
    return [Round((ours,) * 3, (theirs,) * 3)]


def row(what: str, *turns: Round) -> pipeline.Row:
    (found,) = [row for row in pipeline.compare(turns) if row.what == what]
    return found


def test_the_parts_add_up_to_the_whole():
    found = pipeline.timing(run(("Trainer", 3.0), ("Pusher", 1.0), after=2.0), START, 7.0, 5.0)
    assert found.parts == {BEFORE: 2.0, "Trainer": 3.0, "Pusher": 1.0, REST: 1.0}
    assert found.total == 7.0 and found.cpu == 5.0


def test_what_does_the_same_job_has_the_same_name():
    ours = pipeline.timing(
        run(("ImageExampleGen", 1), ("InlineSchemaGen", 1), after=0), START, 3, 0
    )
    theirs = pipeline.timing(run(("ImportExampleGen", 1), ("SchemaGen", 1), after=0), START, 3, 0)
    assert ours.steps == theirs.steps


def test_images_become_records_before_the_first_component():
    found = pipeline.timing(run(("Trainer", 3.0), after=2.0), START, 7.0, 5.0, records=0.5)
    assert found.parts == {BEFORE: 1.5, "Trainer": 3.0, RECORDS: 0.5, REST: 2.0}


def test_parts_above_the_whole_are_refused():
    with pytest.raises(ValueError, match="must not exceed the whole"):
        Timing(3.0, 1.0, {"Trainer": 2.5}, cpu=1.0)


def test_training_and_beam_work_are_told_from_all_else():
    found = Timing(10.0, 2.0, OURS, cpu=1.0)
    assert found.other == 5.0
    assert found.share == 0.5


def test_components_that_only_ours_has_count_in_the_whole_alone():
    turns = rounds()
    assert pipeline.only_own(turns) == ("DriftGate", "Servable")
    assert row("seconds of the first run", *turns).values == (12 / 16,)
    assert row("seconds of its components that both have", *turns).values == (5 / 8,)
    assert "DriftGate and Servable" in row("seconds of the first run", *turns).note


def test_slower_is_a_target_missed():
    assert row("seconds of the all-cached run", *rounds(16.0, 16.0)).reached is True
    assert row("seconds of the all-cached run", *rounds(16.1, 16.0)).reached is False


def test_table_has_a_line_a_part_in_the_order_of_the_flow():
    turns = rounds(own=12.0) + rounds(own=14.0) + rounds(own=13.0)
    lines = [line.split(" | ") for line in pipeline.table(turns).splitlines()]
    assert lines[0][:3] == [
        "| seconds (median of 3)",
        f"{OWN}, first run",
        f"{SMALLEST}, first run",
    ]
    assert [line[:3] for line in lines[2:]] == [
        [f"| {BEFORE}", "2.00", "2.00"],
        [f"| {RECORDS}", "", "0.50"],
        ["| ExampleGen", "1.00", "1.50"],
        ["| DriftGate", "0.50", ""],
        ["| Trainer", "4.00", "6.00"],
        ["| Servable", "1.50", ""],
        [f"| {REST}", "4.00", "6.00"],
        ["| **total**", "**13.00**", "**16.00**"],
        ["| neither training nor Beam work", "8.00", "8.00"],
        ["| its share", "62%", "50%"],
        ["| processor time", "9.00", "6.00"],
    ]
