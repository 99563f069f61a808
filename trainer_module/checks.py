"""The one form of an error about a bad value: the rule, the value received, the remedy."""

from dataclasses import fields
from typing import Any, Literal, get_args, get_origin

_LONGEST_SHOWN = 1000


def require(holds: bool, rule: str, value: object, remedy: str) -> None:
    """Raise ValueError with rule, value and remedy unless `holds`."""
    if not holds:
        shown = repr(value)
        if len(shown) > _LONGEST_SHOWN:
            shown = f"{shown[:_LONGEST_SHOWN]}..."
        raise ValueError(f"{rule}, got {shown}. {remedy}")


def check_choices(config: Any) -> None:
    """Raise ValueError unless each Literal field of a config dataclass holds one of its values."""
    for field in fields(config):
        if get_origin(field.type) is Literal:
            choices = get_args(field.type)
            require(
                getattr(config, field.name) in choices,
                f"{field.name} must be one of {', '.join(map(str, choices))}",
                getattr(config, field.name),
                f'Try {field.name}="{choices[0]}".',
            )
