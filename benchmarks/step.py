"""One component of a run in a process of its own, which prints its seconds and its memory."""

import dataclasses
import json
import resource
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks import child
from pipeline.config import BeamConfig, RunConfig
from trainer_module.util.checks import require

COMPONENTS = ("ImageExampleGen", "StatisticsGen", "Transform", "Trainer", "Evaluator")
REST = "the rest of the run"
"""What follows the Evaluator: Servable, TrainingReport and ServingPusher."""

# The size of the model does not change how its images are read and held.
_WIDTH = 1 / 16
_ROOTS = ("InlineSchemaGen", "LatestBlessedModel", "LatestBlessedStatistics")


@dataclass(frozen=True)
class Step:
    """The step to run; the steps before it come from the cache of the output folder."""

    component: str
    """The last component to run, or `REST`."""
    data: Path
    """Folder of images by class."""
    output: Path
    """Output folder of the run."""
    beam: str = "direct"
    """Engine of Beam."""
    cache_mib: int = 16
    """Decoded training data that the Trainer may keep in memory, in MiB."""

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
    """Time and memory of a step.

    Attributes:
        seconds: Of its components, by ML Metadata.
        processor: Seconds of processor time, including reads from the cache.
        peak_mib: Peak resident memory of the process, in MiB.
        anonymous_mib: Of that, what is not a page of a file, which the system could drop; sampled.
        loss: Validation loss of the trained model; 0 for other steps.
    """

    seconds: float
    processor: float
    peak_mib: float
    anonymous_mib: float
    loss: float = 0.0


def cost(step: Step) -> Cost:
    """Runs a step in a new process.

    Raises:
        ValueError: It failed.
    """
    what = f"{step.component} on {step.data.name} images"
    output = child.run("benchmarks.step", child.flags(step), what)
    return Cost(**json.loads(output.splitlines()[-1]))


def _run(step: Step) -> Cost:
    from pipeline.data import dataset
    from pipeline.metadata import store
    from pipeline.runners import local, logs
    from trainer_module import history

    output = step.output.resolve()
    config = step.config()
    # TFX would look for the outputs of a root that is left out in an earlier run.
    nodes = () if step.component == REST else (step.component, *_ROOTS)
    log = output / "logs" / f"{step.component}.log"
    with logs.capture(log, verbose=False), child.sampled("RssAnon") as samples:
        data = dataset.resolve(config, output)
        config = dataclasses.replace(config, classes=data.classes)
        before = _processor()
        local.execute(config, data, output, to_nodes=nodes)
        used = _processor() - before
    records = store.read(store.file_of(output))
    executions = [e for e in records.runs[-1].executions if e.state == "complete"]
    others = [e for e in executions if e.component not in COMPONENTS]
    named = [e for e in executions if e.component == step.component]
    measured = others if step.component == REST else named
    require(
        bool(measured),
        f"{step.component} must have run",
        [e.component for e in executions],
        "Give each measurement an output folder in which only the steps before it have run.",
    )
    loss = 0.0
    if step.component == "Trainer":
        trained = dict(measured[-1].outputs)["training_history"]
        loss = history.read(Path(trained.uri) / history.FILE_NAME).epochs[-1].metrics["val_loss"]
    return Cost(
        seconds=round(sum(e.seconds for e in measured), 3),
        processor=round(used, 2),
        peak_mib=round(child.memory_mib("VmHWM"), 1),
        anonymous_mib=round(max(samples), 1),
        loss=loss,
    )


def _processor() -> float:
    """Processor time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(_run(tyro.cli(Step)))))
