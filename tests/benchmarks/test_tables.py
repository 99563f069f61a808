from benchmarks import tables
from pipeline.compare.statistics import Comparison, Trial
from trainer_module.history import EpochRecord, History


def trial(strategy: str, stop_reason: str = "done") -> Trial:
    record = EpochRecord(
        epoch=1,
        metrics={"val_accuracy": 0.9},
        learning_rate=0.1,
        batch_size=32,
        update_noise=1.0,
        simple_noise_scale=None,
        updates=10,
        examples=320,
        seconds=5.0,
        action="stop",
        reason="no better",
        best=True,
    )
    return Trial(strategy, 0, History({}, "val_accuracy", "max", (record,), stop_reason), 0.9)


def test_markdown_has_a_row_for_each_run_and_cannot_be_broken_by_a_reason():
    made = Comparison((trial("lr_decay", "a | b\nc"), trial("hybrid")))
    text = tables.markdown(made, "digits", "plateau compare digits")
    rows = [line for line in text.split("## Runs")[1].splitlines() if line.startswith("| lr_decay")]
    assert "a \\| b c |" in rows[0]
    totals = text.split("## Totals")[1].split("Relative to")[0]
    widths = {line.count("|") for line in totals.splitlines() if line.startswith("|")}
    assert widths == {7}
    assert "nan" not in text
