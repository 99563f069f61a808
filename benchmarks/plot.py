"""Plot of a comparison: the metric over epochs and updates, noise scale and batch size."""

from pathlib import Path
from typing import Any

from pipeline.compare.statistics import Comparison

_MARKS = {"lr_decay": "v", "batch_increase": "^", "batch_increase_and_lr_decay": "D", "stop": "X"}


def draw(comparison: Comparison, path: Path, title: str) -> None:
    """Draws mean and standard deviation over seeds of the metric that drives the schedule.

    Raises:
        ValueError: Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(
            f"the plot needs Matplotlib, got {error}. Install the development requirements "
            "with make install-dev; the results are kept."
        ) from error
    metric = comparison.monitor
    figure = Figure(figsize=(13, 8), layout="constrained")
    axes: dict[str, Any] = figure.subplot_mosaic([["epochs", "updates"], ["noise", "batch"]])
    colors = {strategy: f"C{index}" for index, strategy in enumerate(comparison.strategies)}
    for unit in ("epochs", "updates"):
        axes[unit].set(xlabel=unit, ylabel=metric)
        for curve in comparison.curves(unit):
            color, deviation = colors[curve.strategy], [d or 0.0 for d in curve.deviation]
            low, high = (
                [m + sign * d for m, d in zip(curve.mean, deviation, strict=True)]
                for sign in (-1, 1)
            )
            label = f"{curve.strategy} (n = {len(comparison.seeds)})"
            axes[unit].plot(curve.x, curve.mean, color=color, label=label)
            axes[unit].fill_between(curve.x, low, high, color=color, alpha=0.2, linewidth=0)
    for trial in comparison.trials:
        color, records = colors[trial.strategy], trial.history.epochs
        x = trial.axis("epochs")
        for name, values in (
            ("noise", [record.update_noise for record in records]),
            ("batch", [record.batch_size for record in records]),
        ):
            axes[name].step(x, values, where="mid", color=color, alpha=0.6)
        for record in trial.history.decisions:
            axes["epochs"].scatter(
                record.epoch,
                record.metrics[metric],
                marker=_MARKS.get(record.action, "o"),
                color=color,
                edgecolors="black",
                linewidths=0.5,
                zorder=3,
            )
    axes["noise"].set(xlabel="epochs", ylabel="update noise", yscale="log")
    axes["batch"].set(xlabel="epochs", ylabel="batch size", yscale="log")
    for axis in axes.values():
        axis.grid(alpha=0.3)
    for action, mark in _MARKS.items():
        axes["epochs"].scatter([], [], marker=mark, color="grey", label=action)
    axes["epochs"].legend(fontsize="small")
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
