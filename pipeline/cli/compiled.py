"""Console output of `plateau compile`."""

from rich.console import Console
from rich.markup import escape

from ..runners.kubeflow import CompileConfig, CompileResult
from .console import table


def print_compiled(console: Console, compiled: CompileResult, config: CompileConfig) -> None:
    """Prints what was written, what a run of it may set, and the next command."""
    listing = table("What a run may set", "parameter", "default")
    for name, value in config.parameters.items():
        listing.add_row(name, escape(str(value)))
    console.print(listing)
    lines = [
        f"file   {compiled.file}",
        f"worker {compiled.train_config}, for trainer_module.worker",
    ]
    if config.checkpoints:
        lines.append(f"A Trainer whose pod is lost resumes from {config.checkpoints}.")
    else:
        lines.append("There is no volume: a Trainer whose pod is lost starts over.")
    if config.target == "kfp":
        lines.append(f"next   plateau submit {compiled.file} --host URL")
    console.print("\n".join(map(escape, lines)), soft_wrap=True)
