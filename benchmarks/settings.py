"""What a benchmark run is asked to do: every field is a flag."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import tyro

from trainer_module.util.checks import require

Part = Literal["speed", "precision", "stage", "memory", "contest", "full"]
PARTS: tuple[Part, ...] = get_args(Part)
ROOT = Path(__file__).parents[1]
MOST_IMAGES = 40_000
"""Images a contest can train on: a fifth more must steer the schedule, of 50,000 in all."""


@dataclass(frozen=True)
class Settings:
    """Measure ratios against Keras, a bare loop and the published method.

    Attributes:
        parts: What to measure.
        quick: Prove in a minute that every part works: tiny sizes, ratios without weight.
        rounds: Turns each contestant takes; ratios are taken within a turn.
        seeds: Runs of each contestant of the contest.
        images: CIFAR-10 images the contest trains on; a fifth as many more steer the schedule.
        width: Width multiplier of the small CNN.
        data: The archive of CIFAR-10 pictures, one folder a split and class.
        output: Folder of the results.
        note: What a reader of the results must know of the machine while it measured.
    """

    parts: tyro.conf.Positional[tuple[Part, ...]] = PARTS
    quick: bool = False
    rounds: int = 5
    seeds: int = 5
    images: int = 10_000
    width: float = 0.25
    data: Path = ROOT.parent / "shared" / "data" / "cifar10-images.tar.gz"
    output: Path = ROOT / "benchmarks" / "results"
    note: str = ""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("rounds", "seeds"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1", value, f"Try --{name} 5.")
        require(
            100 <= self.images <= MOST_IMAGES,
            f"images must be 100 to {MOST_IMAGES:,}",
            self.images,
            "Try --images 10000.",
        )
