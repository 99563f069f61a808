import io
import logging

from rich.console import Console

from pipeline.runners.progress import STEPS, Progress, shown


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def record(msg: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("absl", logging.INFO, "", 0, msg, args, None)


def test_a_line_for_each_component() -> None:
    text, clock = io.StringIO(), Clock()
    progress = Progress(Console(file=text), clock)
    for component, cached, seconds in (
        ("StatisticsGen", True, 0.04),
        ("Trainer", False, 12.34),
        ("Evaluator", False, 3.0),
    ):
        progress.emit(record("Component %s is running.", component))
        assert progress.component == component
        if cached:
            progress.emit(record("A cached execution %d is used.", 7))
        clock.now += seconds
        progress.emit(record("something else about %s", component))
        progress.emit(record("Component %s is finished.", component))
    assert progress.component is None
    assert text.getvalue().splitlines() == [
        "✓ StatisticsGen cached",
        "▸ Trainer",
        "✓ Trainer 12.3 s",
        "✓ Evaluator 3.0 s",
    ]


def test_steps_are_counted_in_each_run() -> None:
    text = io.StringIO()
    progress = Progress(Console(file=text), Clock())
    for _ in range(2):
        progress.emit(record(STEPS, 2))
        for component in ("Trainer", "Evaluator"):
            progress.emit(record("Component %s is running.", component))
            progress.emit(record("Component %s is finished.", component))
    assert text.getvalue().splitlines() == 2 * [
        "▸ Trainer, step 1 of 2",
        "✓ Trainer 0.0 s, step 1 of 2",
        "✓ Evaluator 0.0 s, step 2 of 2",
    ]


def test_the_failed_component_stays_known() -> None:
    with shown(Console(file=io.StringIO())) as progress:
        logging.getLogger().handle(record("Component %s is running.", "Trainer"))
    assert progress.component == "Trainer"
    assert progress not in logging.getLogger().handlers


def test_no_spinner_beside_the_trainer_in_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    progress = Progress(console, Clock())
    progress.emit(record("Component %s is running.", "StatisticsGen"))
    # Rich refuses a second live display while one is active.
    assert progress._status is not None
    progress.emit(record("Component %s is finished.", "StatisticsGen"))
    progress.emit(record("Component %s is running.", "Trainer"))
    with console.status("the trainer's own"):
        pass
