"""One component of a run in a process of its own, which then tells its seconds and its memory."""

import dataclasses
import json
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks import child
from benchmarks.memory import peak_mib
from pipeline.config import RunConfig
from pipeline.runners.beam import BeamConfig
from trainer_module.util.checks import require

COMPONENTS = ("ImageExampleGen", "StatisticsGen", "Transform", "Trainer", "Evaluator")
REST = "the rest of the run"
"""What follows the Evaluator: Servable, TrainingReport and Pusher."""

# How many numbers a model has changes nothing of how its pictures are read and held.
_WIDTH = 1 / 16
_ROOTS = ("InlineSchemaGen", "LatestBlessedModel", "LatestBlessedStatistics")
_SAMPLE_SECONDS = 0.05
_PROC = Path("/proc/self/status")


@dataclass(frozen=True)
class Step:
    """What is run; what comes before it is found in the cache of the output folder.

    Attributes:
        component: The last component to run, or `REST`.
        data: Folder of pictures by class.
        output: Output folder of the run.
        beam: Engine of Beam.
        cache_mib: Decoded training data that the Trainer may keep in memory, in MiB.
    """

    component: str
    data: Path
    output: Path
    beam: str = "direct"
    cache_mib: int = 16

    def config(self) -> RunConfig:
        """The cifar10 preset, with one epoch and gates that let every model pass."""
        from pipeline import presets

        preset = presets.cifar10()
        return dataclasses.replace(
            preset,
            data=self.data,
            output=self.output,
            beam=BeamConfig(beam=self.beam),
            schedule=dataclasses.replace(preset.schedule, max_epochs=1),
            network=dataclasses.replace(preset.network, width_multiplier=_WIDTH),
            loop=dataclasses.replace(preset.loop, batch_size=256, cache_mib=self.cache_mib),
            gates=dataclasses.replace(preset.gates, min_accuracy=0.0, max_accuracy_drop=1.0),
        )


@dataclass(frozen=True)
class Cost:
    """What a step took.

    Attributes:
        seconds: Of its components, as ML Metadata has them.
        processor: Seconds of processor time, with what is found in the cache on the way.
        peak_mib: Peak resident memory of the process, in MiB.
        anonymous_mib: Of that, what is no page of a file, which the system could drop; sampled.
        loss: Validation loss of the trained model; 0 for other steps.
    """

    seconds: float
    processor: float
    peak_mib: float
    anonymous_mib: float
    loss: float = 0.0


def cost(step: Step) -> Cost:
    """Run a step in a new process.

    Raises:
        ValueError: It failed.
    """
    what = f"{step.component} on {step.data.name} pictures"
    return Cost(**json.loads(child.last_line("benchmarks.step", child.flags(step), what)))


@contextmanager
def _sampled() -> Iterator[list[float]]:
    """The anonymous memory of this process, in MiB, at many moments."""
    samples = [0.0]
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            fields = dict(line.split(":", 1) for line in _PROC.read_text().splitlines())
            samples.append(int(fields["RssAnon"].split()[0]) / 1024)

    thread = threading.Thread(target=sample, daemon=True)
    if _PROC.exists():
        thread.start()
    try:
        yield samples
    finally:
        ended.set()


def _run(step: Step) -> dict[str, Any]:
    from pipeline.data import dataset
    from pipeline.metadata import store
    from pipeline.runners import local, logs
    from trainer_module import history

    output = step.output.resolve()
    config = step.config()
    # Whatever follows nothing and is left out, TFX would want from an earlier run.
    nodes = () if step.component == REST else (step.component, *_ROOTS)
    log = output / "logs" / f"{step.component}.log"
    with logs.capture(log, verbose=False), _sampled() as found:
        data = dataset.resolve(config, output)
        config = dataclasses.replace(config, classes=data.classes)
        before = _processor()
        local.execute(config, data, output, to_nodes=nodes)
        used = _processor() - before
    records = store.read(store.file_of(output))
    ran = [e for e in records.runs[-1].executions if e.state == "complete"]
    others = [e for e in ran if e.component not in COMPONENTS]
    named = [e for e in ran if e.component == step.component]
    measured = others if step.component == REST else named
    require(
        bool(measured),
        f"{step.component} must have run",
        [e.component for e in ran],
        "Give each measurement an output folder in which only what comes before has run.",
    )
    loss = 0.0
    if step.component == "Trainer":
        made = dict(records.outputs(measured[-1]))["training_history"]
        loss = history.read(Path(made.uri) / history.FILE_NAME).epochs[-1].metrics["val_loss"]
    return {
        "seconds": round(sum(e.seconds for e in measured), 3),
        "processor": round(used, 2),
        "peak_mib": round(peak_mib(), 1),
        "anonymous_mib": round(max(found), 1),
        "loss": loss,
    }


def _processor() -> float:
    """Processor time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def main() -> None:
    """Run the step, and print what it took as a line of JSON."""
    step = tyro.cli(Step, prog="python -m benchmarks.step")
    print(json.dumps(_run(step)))


if __name__ == "__main__":
    main()
