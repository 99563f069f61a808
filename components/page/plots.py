"""Plotly figures in the style of the pages.  Pure: values in, figures out.

Colours are CSS variables, as in "var(--train)", which the page resolves, so that they follow light
and dark mode. In a figure whose x axis can be switched, x values are indices into `Plot.axes`.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# Plotly ships no types.
import plotly.graph_objects as go  # type: ignore[import-untyped]
from plotly.subplots import make_subplots  # type: ignore[import-untyped]

_AXIS = {
    "gridcolor": "var(--grid)",
    "linecolor": "var(--grid)",
    "zeroline": False,
    "automargin": True,
    "title": {"standoff": 10},
}
TEMPLATE = go.layout.Template(
    layout={
        "showlegend": False,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 12, "color": "var(--ink)"},
        "hoverlabel": {
            "bgcolor": "var(--card)",
            "bordercolor": "var(--line)",
            "font": {"color": "var(--ink)"},
            "align": "left",
        },
        "hovermode": "closest",
        "margin": {"l": 10, "r": 16, "t": 12, "b": 42},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
    }
)
_LONGEST_NAME = 18
_PANE_GAP = 34
_MARGINS = {"l": 10, "r": 16, "t": 28, "b": 46}


class Key(NamedTuple):
    """An entry of a plot's legend.

    Attributes:
        name: What is drawn.
        colour: Name of the CSS variable.
        shape: CSS class of the mark.
    """

    name: str
    colour: str
    shape: str


@dataclass(frozen=True)
class Plot:
    """A figure and what the page knows about it.

    Attributes:
        figure: The figure.
        key: Its legend.
        axes: Values of the x axis by unit; empty where the figure has x values of its own.
        least: Smallest width in pixels; the page scrolls a plot sideways where there is less room.
        most: Largest width in pixels.
    """

    figure: go.Figure
    key: Sequence[Key] = ()
    axes: Mapping[str, Sequence[float]] = field(default_factory=dict)
    least: int = 0
    most: int = 0

    def to_json(self) -> dict[str, Any]:
        """Returns what the page's script draws from, as JSON values."""
        made: dict[str, Any] = self.figure.to_plotly_json()
        return {**made, "axes": self.axes, "least": self.least, "most": self.most}


def figure(height: int, **layout: Any) -> go.Figure:
    """Returns an empty figure in the style of the page."""
    return go.Figure(layout={"template": TEMPLATE, "height": height, **layout})


def panes(titles: Sequence[str], heights: Sequence[float], height: int) -> go.Figure:
    """Returns an empty figure of panes above each other, the first at the top, over one x axis.

    Args:
        titles: Title of each pane.
        heights: Relative height of each pane.
        height: Height of the figure in pixels.
    """
    inner = height - _MARGINS["t"] - _MARGINS["b"]
    made = make_subplots(
        rows=len(titles),
        cols=1,
        row_heights=list(heights),
        vertical_spacing=_PANE_GAP / inner,
        # Beside an axis, long titles of low panes would overlap.
        subplot_titles=[plain(title) for title in titles],
    )
    made.update_annotations(x=0, xanchor="left", font_size=12, font_color="var(--muted)")
    made.update_layout(
        template=TEMPLATE,
        height=height,
        margin=_MARGINS,
        hovermode="x unified",
        hoversubplots="axis",
        shapes=[],
    )
    # Traces of all panes are on the last x axis, so that one label tells of all of them.
    made.update_yaxes(anchor=_x_axis(len(titles)))
    made.update_xaxes(visible=False)
    made.update_xaxes(
        visible=True,
        showspikes=True,
        spikemode="across",
        spikethickness=1,
        spikedash="dot",
        spikecolor="var(--muted)",
        row=len(titles),
    )
    for pane, relative in enumerate(heights):
        y_axis(made, pane).nticks = 6 if relative > 1 else 4
    return made


def y_axis(made: go.Figure, pane: int) -> Any:
    """Returns the y axis of a pane."""
    return made.layout["yaxis" + (str(pane + 1) if pane else "")]


def add(made: go.Figure, pane: int, trace: Any) -> None:
    """Adds a trace to a pane of `panes`."""
    rows = len(list(made.select_yaxes()))
    made.add_trace(trace.update(xaxis=_x_axis(rows), yaxis=f"y{pane + 1}" if pane else "y"))


def _x_axis(rows: int) -> str:
    return f"x{rows}" if rows > 1 else "x"


def line(
    values: Sequence[float | None], name: str, colour: str, *, dash: str = "solid"
) -> go.Scatter:
    """Returns a line of values at the ends of epochs."""
    return go.Scatter(
        mode="lines+markers" if len(values) <= 60 else "lines",
        name=plain(name),
        x=list(range(1, len(values) + 1)),
        y=[finite(value) for value in values],
        line={"color": f"var({colour})", "width": 2.5, "dash": dash},
        marker={"size": 5, "color": f"var({colour})"},
        hovertemplate=f"{plain(name)} %{{y:.5~g}}<extra></extra>",
    )


def steps(values: Sequence[float], name: str, colour: str) -> go.Scatter:
    """Returns a line of values that hold during epochs."""
    return go.Scatter(
        mode="lines",
        name=plain(name),
        x=list(range(len(values) + 1)),
        y=[finite(value) for value in (*values[:1], *values)],
        line={"color": f"var({colour})", "width": 2.5, "shape": "vh"},
        hovertemplate=f"{plain(name)} %{{y:.5~g}}<extra></extra>",
    )


def mark(made: go.Figure, index: int, number: int, colour: str, text: str) -> None:
    """Draws a numbered line through all panes.

    Args:
        made: Figure of `panes`.
        index: Index into the axis.
        number: Number on the line; odd and even ones stand on two levels, so that neighbours do
            not collide.
        colour: CSS variable.
        text: What a pointer on the number shows.
    """
    axis = made.data[0].xaxis
    made.add_shape(
        type="line",
        xref=axis,
        yref="paper",
        x0=index,
        x1=index,
        y0=0,
        y1=1,
        opacity=0.75,
        line={"color": f"var({colour})", "width": 1.25, "dash": "dot"},
    )
    made.add_annotation(
        text=f"<b>{number}</b>",
        hovertext=plain(text),
        xref=axis,
        x=index,
        yref="paper",
        y=0,
        yanchor="bottom",
        yshift=2 if number % 2 else 20,
        showarrow=False,
        font={"size": 11, "color": "var(--card)"},
        bgcolor=f"var({colour})",
        borderpad=2,
    )


def log_if_wide(
    made: go.Figure, pane: int, values: Iterable[float | None], *, ratio: float = 15
) -> None:
    """Makes a y axis logarithmic where its values differ by a large ratio and none is zero."""
    known = [value for value in map(finite, values) if value is not None]
    if known and min(known) > 0 and max(known) > ratio * min(known):
        ticks = log_ticks(min(known), max(known))
        y_axis(made, pane).update(type="log", tickmode="array", tickvals=ticks)
    elif known and min(known) == max(known):
        # Of a constant Plotly would show a range around it, as if it had been measured.
        y_axis(made, pane).update(tickmode="array", tickvals=[known[0]])


def log_ticks(low: float, high: float) -> list[float]:
    """Returns 1, 2 and 5 times powers of ten for a narrow range, only the powers for a wide one."""
    digits = (1, 2, 5) if high < 200 * low else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [float(f"{digit}e{power}") for power in powers for digit in digits]


def names_axis(names: Sequence[str], *, vertical: bool = False) -> dict[str, Any]:
    """Returns an axis of names: on a categorical one Plotly would merge equal names."""
    short = [
        name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…" for name in names
    ]
    ends = [-0.5, len(names) - 0.5]
    slanted = -90 if len(names) > 25 else -45
    return {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [plain(name) for name in short],
        "tickangle": 0 if vertical or max(map(len, short)) * len(short) <= 45 else slanted,
        "range": ends[::-1] if vertical else ends,
        "ticks": "",
        # Plotly would measure every name to see whether it leaves the plot; margins see to that.
        "ticklabeloverflow": "allow",
        "showgrid": vertical,
    }


def plain(text: str) -> str:
    """Returns text as Plotly shows it literally, which otherwise takes `<b>` for markup."""
    return html.escape(text, quote=False)


def finite(value: float | None) -> float | None:
    """Returns the value, or None where there is none to draw."""
    return value if value is not None and math.isfinite(value) else None
