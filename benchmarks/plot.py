"""The published figure's kind: accuracy over epochs and updates, and what the schedule did."""

from pathlib import Path
from typing import Any

from pipeline.compare.statistics import Comparison, Trial, Unit, curve

_MARKS = {"lr_decay": "v", "batch_increase": "^", "batch_increase_and_lr_decay": "D", "stop": "X"}


def draw(comparison: Comparison, metric: str, path: Path, title: str) -> None:
    """Draw a metric, mean and standard deviation over seeds, and the update noise of each run.

    Args:
        comparison: The runs; a colour a strategy.
        metric: One of the metrics of their epochs.
        path: PNG file; its folder is made.
        title: Title of the figure.

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
    figure = Figure(figsize=(13, 8), layout="constrained")
    places: dict[str, Any] = figure.subplot_mosaic([["epochs", "updates"], ["noise", "batch"]])
    for index, strategy in enumerate(comparison.strategies):
        color = f"C{index}"
        for unit in ("epochs", "updates"):
            _mean(places[unit], comparison, strategy, unit, metric, color)
        for trial in comparison.of(strategy):
            records = trial.history.epochs
            x = trial.axis("epochs")
            noise = [record.update_noise for record in records]
            places["noise"].step(x, noise, where="mid", color=color, alpha=0.6)
            batch = [record.batch_size for record in records]
            places["batch"].step(x, batch, where="mid", color=color, alpha=0.6)
    for unit in ("epochs", "updates"):
        places[unit].set(xlabel=unit, ylabel=metric)
    places["noise"].set(xlabel="epochs", ylabel="update noise", yscale="log")
    places["batch"].set(xlabel="epochs", ylabel="batch size", yscale="log")
    for axis in places.values():
        axis.grid(alpha=0.3)
    for action, mark in _MARKS.items():
        places["epochs"].scatter([], [], marker=mark, color="grey", label=action)
    places["epochs"].legend(fontsize="small")
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _mean(
    axis: Any, comparison: Comparison, strategy: str, unit: Unit, metric: str, color: str
) -> None:
    trials = comparison.of(strategy)
    found = curve(strategy, [(trial.axis(unit), _values(trial, metric)) for trial in trials])
    low = [m - (d or 0.0) for m, d in zip(found.mean, found.deviation, strict=True)]
    high = [m + (d or 0.0) for m, d in zip(found.mean, found.deviation, strict=True)]
    axis.plot(found.x, found.mean, color=color, label=f"{strategy} (n = {len(trials)})")
    axis.fill_between(found.x, low, high, color=color, alpha=0.2, linewidth=0)
    for trial in trials:
        for x, record in zip(trial.axis(unit), trial.history.epochs, strict=True):
            if record.action != "none":
                axis.scatter(
                    x,
                    record.metrics[metric],
                    marker=_MARKS.get(record.action, "o"),
                    color=color,
                    edgecolors="black",
                    linewidths=0.5,
                    zorder=3,
                )


def _values(trial: Trial, metric: str) -> list[float]:
    return [record.metrics[metric] for record in trial.history.epochs]
