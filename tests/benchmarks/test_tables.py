from benchmarks import tables
from pipeline.compare.statistics import Comparison
from tests.trials import trial


def test_markdown_has_a_row_for_each_run_and_cannot_be_broken_by_a_reason():
    made = Comparison((trial("lr_decay", stop_reason="a | b\nc"), trial("hybrid")))
    text = tables.markdown(made, "digits", "plateau compare digits")
    rows = [line for line in text.split("## Runs")[1].splitlines() if line.startswith("| lr_decay")]
    assert "a \\| b c |" in rows[0]
    totals = text.split("## Totals")[1].split("Relative to")[0]
    widths = {line.count("|") for line in totals.splitlines() if line.startswith("|")}
    assert widths == {7}
    assert "nan" not in text
