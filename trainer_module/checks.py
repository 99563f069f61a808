"""The one form of an error about a bad value: the rule, the value received, the remedy."""


def require(holds: bool, rule: str, value: object, remedy: str) -> None:
    """Raise ValueError with rule, value and remedy unless `holds`."""
    if not holds:
        raise ValueError(f"{rule}, got {value!r}. {remedy}")
