"""Charts as plain numbers, which the template draws as SVG."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 38, 8, 8, 22
"""The size of a chart and its margins, in the units of its text, which is 10 high."""

MOST_POINTS = 400
"""The number of points of a line; longer ones are thinned out."""


@dataclass
class Line:
    """A line of a chart: its name, its color (a number of the style sheet), and its points as SVG writes them.

    `band` are the points of an area around it; empty if it has none.
    """

    name: str
    color: int
    points: str
    band: str = ""


@dataclass
class Chart:
    """A chart.

    Attributes:
        title: What it shows.
        lines: The lines that are drawn.
        x_ticks: Places and labels of the horizontal axis.
        y_ticks: Places and labels of the vertical axis.
        x_label: What the horizontal axis is.
        dots: Whether the points are not joined.
    """

    title: str
    lines: list[Line] = field(default_factory=list)
    x_ticks: list[tuple[float, str]] = field(default_factory=list)
    y_ticks: list[tuple[float, str]] = field(default_factory=list)
    x_label: str = ""
    dots: bool = False


Points = Sequence[tuple[float, float | None]]
Band = Sequence[tuple[float, float, float]]


def line_chart(
    title: str,
    lines: Mapping[str, Points],
    x_label: str,
    share: bool = False,
    log: bool = False,
    dots: bool = False,
    bands: Mapping[str, Band] | None = None,
    colors: Mapping[str, int] | None = None,
) -> Chart | None:
    """Lay out lines over a common axis; None if no line has a point.

    Args:
        title: What the chart shows.
        lines: Points (x, y) of each line by its name; a y of None or NaN is left out.
        x_label: What x is.
        share: Whether y are shares: the axis is 0 to 1, in percent.
        log: Whether the vertical axis is logarithmic; y of 0 are left out.
        dots: Whether the points are not joined, as those of classes.
        bands: Lower and upper ends (x, low, high) of an area around lines of these names. With it, an axis of shares is
            only as long as lines and bands are, to tens of percent.
        colors: The colors of lines of these names; of others, the color follows from the place.
    """
    known = {name: [(x, y) for x, y in points if y is not None and math.isfinite(y)] for name, points in lines.items()}
    if log:
        known = {name: [(x, math.log10(y)) for x, y in points if y > 0] for name, points in known.items()}
    known = {name: _thinned(points) for name, points in known.items() if points}
    if not known:
        return None
    xs = [x for points in known.values() for x, _ in points]
    ys = [y for points in known.values() for _, y in points]
    low, high = (0.0, 1.0) if share else (0.0, max(ys, default=1.0) or 1.0)
    if share and bands is not None:
        low, high = _tens([*ys, *(y for band in bands.values() for _, *ends in band for y in ends)])
    steps = (
        _log_ticks(high)
        if log
        else [low + tick for tick in _ticks(high - low) if not share or low + tick <= high + 1e-9]
    )
    high = high if share else max(high, steps[-1])
    first, last = min(xs), max(xs)
    span = (last - first) or 1.0

    def place_x(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (x - first) / span

    def place_y(y: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (y - low) / (high - low))

    chart = Chart(title, x_label=x_label, dots=dots)
    chart.y_ticks = [(place_y(y), _y_label(y, share, log)) for y in steps]
    middle = (first + last) / 2
    at = [first, middle, last] if last > first and middle == int(middle) else [first, last] if last > first else [first]
    chart.x_ticks = [(place_x(x), f"{x:,.0f}") for x in at]
    for color, (name, points) in enumerate(known.items()):
        if len(points) == 1 and not dots:  # a line of one point would not be seen
            points = [(points[0][0], points[0][1]), (points[0][0] + span / 100, points[0][1])]
        drawn = " ".join(
            ("M{:.1f},{:.1f}h0" if dots else "{:.1f},{:.1f}").format(place_x(x), place_y(y)) for x, y in points
        )
        ends = (bands or {}).get(name, ())
        outline = [(x, y) for x, y, _ in ends] + [(x, y) for x, _, y in reversed(ends)]
        band = " ".join(f"{place_x(x):.1f},{place_y(min(max(y, low), high)):.1f}" for x, y in outline)
        chart.lines.append(Line(name, (colors or {}).get(name, color), drawn, band))
    return chart


def _y_label(y: float, share: bool, log: bool) -> str:
    return f"{100 * y:.0f} %" if share else f"{10**y:,.0f}" if log else f"{y:.3g}"


def _ticks(high: float) -> list[float]:
    """Return round numbers from 0 to at least `high`, four to six of them."""
    step = 10 ** math.floor(math.log10(high / 4))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if factor * step * 5 >= high)
    return [step * n for n in range(math.ceil(high / step - 1e-9) + 1)]


def _tens(ys: Sequence[float]) -> tuple[float, float]:
    """Return the tenths below and above some shares."""
    low, high = max(0, math.floor(10 * min(ys))), min(10, math.ceil(10 * max(ys)))
    return (low / 10, high / 10) if high > low else (max(0, low - 1) / 10, max(1, low) / 10)


def _log_ticks(high: float) -> list[float]:
    return [float(n) for n in range(max(1, math.ceil(high - 1e-9)) + 1)]


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep the first and the last point, and of the others so many that a page stays small."""
    if len(points) <= MOST_POINTS:
        return points
    return [points[round(n * (len(points) - 1) / (MOST_POINTS - 1))] for n in range(MOST_POINTS)]
