"""Settings of a benchmark run; every field is a flag."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro
from annotated_types import Ge, Interval

from trainer_module.util.checks import check_fields

Part = Literal["speed", "precision", "stage", "memory", "contest", "full", "pipeline", "scale"]
PARTS: tuple[Part, ...] = get_args(Part)
ROOT = Path(__file__).parents[1]
MOST_IMAGES = 40_000
"""Training images of a contest: a fifth more drive the schedule, of 50,000 in all."""


@dataclass(frozen=True)
class Settings:
    """Measures ratios against Keras, a bare loop, the published method and a plain pipeline."""

    parts: tyro.conf.Positional[tuple[Part, ...]] = PARTS
    """Parts to measure."""
    quick: bool = False
    """Prove in a few minutes that every part works: tiny sizes, ratios without weight."""
    rounds: Annotated[int, Ge(1)] = 5
    """Turns that each contestant takes; ratios are taken within a turn."""
    seeds: Annotated[int, Ge(1)] = 5
    """Runs of each contestant of the contest."""
    images: Annotated[int, Interval(ge=100, le=MOST_IMAGES)] = 10_000
    """CIFAR-10 images that the contest trains on; a fifth as many more drive the schedule."""
    width: float = 0.25
    """Width multiplier of the small CNN."""
    sizes: tuple[int, ...] = (1_000, 10_000, 60_000, 200_000)
    """Numbers of images for the part scale, rising."""
    data: Path = ROOT.parent / "shared" / "data" / "cifar10-images.tar.gz"
    """Archive of CIFAR-10's images, one folder for each split and class."""
    output: Path = ROOT / "benchmarks" / "results"
    """Folder of the results."""
    note: str = ""
    """Remark about the machine, for readers of the results."""

    def __post_init__(self) -> None:
        check_fields(self)
