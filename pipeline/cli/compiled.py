"""What a person reads about a compiled pipeline."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..runners.kubeflow import CompileConfig, CompileResult


def print_compiled(console: Console, compiled: CompileResult, config: CompileConfig) -> None:
    """Print what was written, what a run of it may set, and how to go on.

    Args:
        console: Where to.
        compiled: What was compiled.
        config: What was asked for.
    """
    table = Table("parameter", "default", title="What a run may set", title_justify="left")
    for name, value in compiled.parameters.items():
        table.add_row(name, escape(str(value)))
    console.print(table)
    for warning in compiled.warnings:
        console.print(Text.assemble(("warning", "bold yellow"), f"  {warning}"))
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
