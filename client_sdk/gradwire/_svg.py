"""Draws curves as small SVG images that are readable on light and on dark backgrounds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from gradwire._curve import Curve
from gradwire_engine.formatting import count_text

# Colors with enough contrast on white and on dark grey.
COLORS = ("#3b82f6", "#e8710a", "#2e9e5b", "#a855d4", "#e0484e", "#1199a8")
_WIDTH, _HEIGHT = 330, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 10, 26, 24
_LARGEST, _SMALLEST_SPAN = 1e300, 1e-300
_FONT = 'font-family="system-ui, sans-serif" font-size="11" fill="currentColor"'


@dataclass(frozen=True)
class Series:
    """A curve of a chart.

    Attributes:
        label: The label in the legend.
        curve: The points. A value that is not finite, or is too large to draw, is a gap.
        color: The color.
        dashed: Whether the line is dashed.
    """

    label: str
    curve: Curve
    color: str
    dashed: bool = False


def chart(title: str, series: Sequence[Series]) -> str:
    """Return a chart of curves over the epochs as an SVG element."""
    epochs = [epoch for each in series for epoch in each.curve.epochs]
    values = [value for each in series for value in each.curve.values if abs(value) <= _LARGEST]
    scale = _Scale.over(epochs, values)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'role="img" aria-label="{escape(title)}" style="max-width:100%;height:auto">',
        f'<text x="{_LEFT}" y="14" {_FONT} font-weight="bold">{escape(title)}</text>',
        *_legend(series, _LEFT + 7 * len(title) + 16),
        *_axes(scale),
    ]
    for each in series:
        parts += _line(each, scale)
    if not values:
        parts.append(f'<text x="{_WIDTH // 2}" y="{_HEIGHT // 2}" {_FONT} text-anchor="middle">no finite values</text>')
    return "".join([*parts, "</svg>"])


@dataclass(frozen=True)
class _Scale:
    """Maps epochs and values to pixels."""

    first: int
    last: int
    low: float
    high: float
    step: float

    @classmethod
    def over(cls, epochs: Sequence[int], values: Sequence[float]) -> "_Scale":
        low, high = min(values, default=0.0), max(values, default=1.0)
        if high - low <= max(_SMALLEST_SPAN, 1e-9 * max(abs(low), abs(high))):  # It is constant except for rounding.
            margin = max(_SMALLEST_SPAN, abs(low) / 2) if low else 0.5
            low, high = low - margin, low + margin
        step = nice_step(high - low)
        low, high = math.floor(low / step) * step, math.ceil(high / step) * step
        return cls(min(epochs, default=0), max(epochs, default=1), low, high, step)

    def x(self, epoch: int) -> float:
        width = _WIDTH - _LEFT - _RIGHT
        if self.first == self.last:
            return _LEFT + width / 2
        return _LEFT + (epoch - self.first) / (self.last - self.first) * width

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def nice_step(span: float) -> float:
    """Return 1, 2 or 5 times a power of ten that divides a span into at most five parts."""
    power: float = 10.0 ** math.floor(math.log10(span / 5))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power * 5 >= span * (1 - 1e-9))


def _axes(scale: _Scale) -> list[str]:
    parts = []
    for index in range(round((scale.high - scale.low) / scale.step) + 1):
        value = scale.low + index * scale.step
        y = scale.y(value)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" opacity="0.2"/>'
        )
        text = _tick(value, scale.step)
        parts.append(f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" {_FONT} text-anchor="end">{text}</text>')
    for epoch in sorted({scale.first, (scale.first + scale.last) // 2, scale.last}):
        anchor = "end" if epoch == scale.last != scale.first else "middle"
        parts.append(f'<text x="{scale.x(epoch):.1f}" y="{_HEIGHT - 8}" {_FONT} text-anchor="{anchor}">{epoch}</text>')
    return parts


def _tick(value: float, step: float) -> str:
    if abs(value) >= 10_000:
        return f"{'-' if value < 0 else ''}{count_text(abs(value))}" if abs(value) < 1e12 else f"{value:.0e}"
    decimals = max(0, -math.floor(math.log10(step)))
    if decimals <= 4:
        return f"{value:.{decimals}f}"
    digits = max(0, math.floor(math.log10(abs(value)) + 1e-9) + decimals) if value else 0
    return f"{value:.{digits}e}"


def _line(series: Series, scale: _Scale) -> list[str]:
    """Return a polyline for each part without gaps, and a dot for each part that consists of one point."""
    parts, points = [], list[str]()
    for epoch, value in [*zip(series.curve.epochs, series.curve.values, strict=True), (0, math.nan)]:
        if abs(value) <= _LARGEST:
            points.append(f"{scale.x(epoch):.1f},{scale.y(value):.1f}")
            continue
        if len(points) == 1:
            x, y = points[0].split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{series.color}"/>')
        elif points:
            dash = ' stroke-dasharray="5 3"' if series.dashed else ""
            parts.append(
                f'<polyline points="{" ".join(points)}" fill="none" stroke="{series.color}" stroke-width="1.8"{dash}/>'
            )
        points = []
    return parts


def _legend(series: Sequence[Series], x: float) -> list[str]:
    parts = []
    for each in series:
        label = each.label if len(each.label) <= 16 else f"{each.label[:15]}…"
        dash = ' stroke-dasharray="5 3"' if each.dashed else ""
        parts.append(f'<line x1="{x}" x2="{x + 18}" y1="10" y2="10" stroke="{each.color}" stroke-width="2"{dash}/>')
        parts.append(f'<text x="{x + 22}" y="14" {_FONT}>{escape(label)}</text>')
        x += 34 + 6.5 * len(label)
    return parts
