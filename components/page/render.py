"""Rendering of self-contained HTML pages: numbers in words, escaped text, JSON for the plots."""

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from trainer_module.util.text import visible

if TYPE_CHECKING:
    from components.page.plots import Plot

NOT_AVAILABLE = "n/a"
_FOLDER = Path(__file__).parent


def page(template: Path, plots: Mapping[str, "Plot"], **values: Any) -> str:
    """Returns a page: HTML that loads nothing, in which every text from outside is escaped.

    Args:
        template: Template that extends `base.html`.
        plots: Plots by name, for the macro `plot`.
        values: Variables of the template.
    """
    return (
        _environment(template.parent)
        .get_template(template.name)
        .render(
            **values,
            plots=plots,
            page_data=script_json({name: plot.to_json() for name, plot in plots.items()}),
            css=Markup(_asset("page.css")),
            script=Markup(_asset("page.js")),
            plotly=Markup(_plotly()),
        )
    )


def flatten(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Returns a nested config as rows of dotted name and JSON value, floats with six digits."""
    rows: list[tuple[str, str]] = []
    for name, value in config.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            rows += flatten(value, f"{path}.")
        else:
            short = json.loads(
                json.dumps(value), parse_float=lambda text: float(f"{float(text):.6g}")
            )
            rows.append((path, json.dumps(short, ensure_ascii=False)))
    return rows


def script_json(value: Any) -> Markup:
    """Returns JSON that is safe inside a script element, where `</script>` would end it."""
    text = json.dumps(_plain(value), allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return visible(value, keep="\n\t")
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


@lru_cache
def _environment(folder: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _FOLDER]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "metric": metric,
        "interval": interval,
        "signed": _signed,
        "number": lambda value: NOT_AVAILABLE if value is None else f"{value:,}",
        "weighted": lambda value: f"{value:,.12g}",
        "decimal": _decimal,
        "general": _general,
        "percent": lambda value: NOT_AVAILABLE if value is None else f"{value:.1%}",
    }
    return environment


def _visible(value: Any) -> Any:
    """Escapes control characters of texts, except of our own markup."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value, keep="\n\t")
    return value


@lru_cache
def _asset(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


@lru_cache
def _plotly() -> str:
    # Plotly ships no types.
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    text: str = get_plotlyjs()
    return text


def metric(value: float | None) -> str:
    """Returns a metric with four decimals, or of errors in large or tiny units seven digits."""
    if value is None or math.isnan(value):
        return NOT_AVAILABLE
    is_usual = value == 0 or 5e-5 <= abs(value) < 1000
    return f"{value:.4f}" if is_usual else f"{value:,.7g}"


def interval(ends: tuple[float, float] | None) -> str:
    """Returns a confidence interval in brackets."""
    return NOT_AVAILABLE if ends is None else f"[{metric(ends[0])}, {metric(ends[1])}]"


def duration(seconds: float) -> str:
    """Returns a duration in the unit that suits it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def count(number: int, noun: str) -> str:
    """Returns a number with its noun in singular or plural."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _general(value: float | None) -> str:
    return NOT_AVAILABLE if value is None or math.isnan(value) else f"{value:,.4g}"


def _signed(value: float) -> str:
    if math.isnan(value):
        return NOT_AVAILABLE
    return f"{value:+.4f}" if value else "0.0000"


def _decimal(value: float) -> str:
    """Returns six digits without an exponent, so that rates compare at a glance."""
    return f"{Decimal(f'{value:.6g}'):f}"
