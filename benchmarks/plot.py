"""The published figure's kind: accuracy over epochs with each decision marked, and over updates."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.runs import Epoch, Run, band

_MARKS = {"decay_lr": "v", "grow_batch": "^", "grow_batch_and_decay_lr": "D", "stop": "X"}


def draw(runs: Sequence[Run], path: Path, title: str) -> None:
    """Draw test accuracy: mean and standard deviation over seeds, one colour a contestant.

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
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    axes: list[tuple[object, Callable[[Epoch], float], str]] = [
        (left, lambda epoch: epoch.epoch, "epochs"),
        (right, lambda epoch: epoch.updates, "updates"),
    ]
    for axis, x, label in axes:
        for index, name in enumerate(dict.fromkeys(run.contestant for run in runs)):
            own = [run for run in runs if run.contestant == name]
            _contestant(axis, own, x, name, f"C{index}")
        axis.set_xlabel(label)  # type: ignore[attr-defined]
        axis.grid(alpha=0.3)  # type: ignore[attr-defined]
    left.set_ylabel("test accuracy")
    for action, mark in _MARKS.items():
        left.scatter([], [], marker=mark, color="grey", label=action)
    left.legend(fontsize="small")
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _contestant(
    axis: object, runs: Sequence[Run], x: Callable[[Epoch], float], name: str, color: str
) -> None:
    curves = [[(x(epoch), epoch.test_accuracy) for epoch in run.epochs] for run in runs]
    # Past the median end most of the curve would be values held after the end.
    end = median(curve[-1][0] for curve in curves)
    grid = np.linspace(min(curve[0][0] for curve in curves), end, 200)
    mean, spread = band(curves, grid)
    axis.plot(grid, mean, color=color, label=f"{name} (n = {len(runs)})")  # type: ignore[attr-defined]
    axis.fill_between(  # type: ignore[attr-defined]
        grid, mean - spread, mean + spread, color=color, alpha=0.2, linewidth=0
    )
    for run in runs:
        for epoch in run.epochs:
            if epoch.action != "none":
                axis.scatter(  # type: ignore[attr-defined]
                    x(epoch),
                    epoch.test_accuracy,
                    marker=_MARKS.get(epoch.action, "o"),
                    color=color,
                    edgecolors="black",
                    linewidths=0.5,
                    zorder=3,
                )
