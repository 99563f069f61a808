"""One measured comparison: values, their target, and whether it was reached.  Pure."""

from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

from trainer_module.util.checks import require


@dataclass(frozen=True)
class Comparison:
    """Values of one quantity, one for each round or seed.

    Attributes:
        what: What was measured.
        against: What it was measured against.
        values: Ratios, or whatever `what` says, in the order measured.
        sense: Whether the median should be at least or at most the target.
        target: What the median should reach; None where a figure is only informative.
        note: What a reader must know to judge it.
    """

    what: str
    against: str
    values: tuple[float, ...]
    sense: Literal["at least", "at most"] = "at least"
    target: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        require(bool(self.values), "a comparison must hold values", self.values, "Measure first.")

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def reached(self) -> bool | None:
        """Whether the median reaches the target; None without one."""
        if self.target is None:
            return None
        if self.sense == "at least":
            return self.median >= self.target
        return self.median <= self.target

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "median": self.median, "reached": self.reached}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Comparison":
        """Parse what `to_dict` wrote."""
        fields = {key: data[key] for key in data if key not in ("median", "reached")}
        return cls(**{**fields, "values": tuple(data["values"])})


def ratios(numerators: list[float], denominators: list[float]) -> tuple[float, ...]:
    """Ratio within each turn, in which both met the same state of the machine."""
    return tuple(a / b for a, b in zip(numerators, denominators, strict=True))
