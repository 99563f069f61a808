"""Commands that read a preset or a model; each imports what it needs."""

from pathlib import Path

from trainer_module.config import ImageFeatures

from .arguments import Arguments, UsageError


def run(arguments: Arguments) -> int:
    """Runs the pipeline on this machine."""
    config = arguments.read_preset(lambda preset: preset)

    from ..runners import local
    from . import columns, console, result

    out = console.make()
    if arguments.table is not None:
        columns.print_columns(out, arguments.table)
    if arguments.look is not None and isinstance(config.features, ImageFeatures):
        out.print(arguments.look.describe(config.features), soft_wrap=True)
    done = local.run(config, out, arguments.line)
    result.print_result(out, done)
    return 0 if done.pushed else 3


def schema(arguments: Arguments) -> int:
    """Infers the schema of a table, and writes it."""
    from . import columns, console

    config = arguments.read(columns.SchemaConfig(Path()))
    columns.write_schema(config, console.make())
    return 0


def plan(arguments: Arguments) -> int:
    """Prints what the schedule will do."""
    from . import console, forecast

    config = arguments.read_preset(forecast.PlanConfig)
    console.make().print(forecast.show(forecast.make_plan(config)))
    return 0


def compare(arguments: Arguments) -> int:
    """Trains the strategies side by side."""
    from ..compare import run as comparison

    several = "a comparison has several strategies. Name them with --strategies."
    config = arguments.read_preset(comparison.default, refused={"strategy": several})

    from ..compare.console import print_comparison
    from . import console

    out = console.make()
    done = comparison.run(config, out, arguments.line)
    print_comparison(out, done.comparison, done.page, done.log, done.seconds)
    return 0


def compile_pipeline(arguments: Arguments) -> int:
    """Compiles the pipeline for Kubeflow Pipelines or Vertex AI."""
    from ..runners import kubeflow

    no_folder = (
        "a compiled pipeline has no output folder. Name the file with --file, and where the tasks "
        "write with --root and --pushed, or --volume."
    )
    config = arguments.read_preset(
        kubeflow.default, needs_data=False, refused={"output": no_folder}
    )

    from . import compiled, console

    compiled.print_compiled(console.make(), kubeflow.run(config, arguments.line), config)
    return 0


def submit(arguments: Arguments) -> int:
    """Submits a compiled pipeline to Kubeflow Pipelines."""
    from ..runners import submit
    from . import console

    config = arguments.read(submit.default())
    return 0 if submit.submit(config, console.make()).ok else 1


def predict(arguments: Arguments) -> int:
    """Predicts images or tables with a pushed model."""
    from .. import predict

    config = arguments.read(predict.default())

    from trainer_module.util import environment

    from . import console, predictions

    environment.prepare()
    with predictions.progress(console.make(stderr=True)) as advance:
        summary = predict.run(config, advance)
    predictions.print_summary(console.make(), summary, config)
    return 0 if summary.predicted else 1


def presets(arguments: Arguments) -> int:
    """Prints the presets."""
    from . import console

    if arguments.words and arguments.words[0] not in ("-h", "--help"):
        raise UsageError(f"`plateau presets` takes no arguments, got {' '.join(arguments.words)}.")
    console.make().print(console.presets())
    return 0
