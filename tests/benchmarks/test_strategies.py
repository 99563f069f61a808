from benchmarks import strategies
from pipeline.compare.statistics import Comparison, Trial
from trainer_module.history import EpochRecord, History
from trainer_module.schedule.scaling import TrainingSpec

SPEC = TrainingSpec(100, "sgd", 0.9)


def trial(strategy, seed, seconds):
    records = []
    for epoch, action in enumerate(("lr_decay", "stop"), 1):
        gain = " (1.02 times the examples/s in the larger batch)" if strategy == "auto" else ""
        record = EpochRecord.after(
            records[-1] if records else None,
            SPEC,
            metrics={"val_accuracy": 0.5},
            learning_rate=0.1,
            batch_size=10,
            updates=10,
            examples=100,
            seconds=seconds * epoch,
            best=epoch == 1,
            action=action,
            reason="stopped" if action == "stop" else f"a plateau{gain}",
        )
        records.append(record)
    history = History({}, "val_accuracy", "max", tuple(records), "stopped")
    return Trial(strategy, seed, history, 0.8 + seed / 10)


def test_the_page_has_the_numbers_of_a_comparison(hardware):
    names = ("lr_decay", "auto")
    trials = [trial(name, seed, 1.0 + (name == "auto")) for name in names for seed in (0, 1)]
    compared = Comparison(tuple(trials)).to_dict()
    text = strategies.page([strategies.section("Birds", "compare --data x", compared)], hardware)
    assert "| auto | 2.0 | 1.00 | 2.00 | 2.00 to 2.00 | 0.8500 ± 0.0707 |" in text
    assert "`plateau compare --data x`" in text
    assert (
        "in 2 runs: learning rate decayed 2 times; throughput gains measured: 1.02, 1.02." in text
    )
