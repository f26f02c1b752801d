"""Bar charts as SVG, by hand: forty lines that need no plotting library, whose output is small, diffable text
that renders anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_COLOURS = ("#0b7285", "#1098ad", "#66d9e8", "#e8590c", "#fd7e14", "#fab005", "#7048e8", "#9775fa", "#868e96")
_BAR, _GAP, _LABEL, _WIDTH = 16, 4, 190, 360


def _panel(title: str, values: Mapping[str, float], unit: str, x: int, y: int) -> list[str]:
    greatest = max(values.values(), default=1.0) or 1.0
    out = [f'<text x="{x}" y="{y + 12}" font-weight="bold">{escape(title)}</text>']
    for number, (name, value) in enumerate(values.items()):
        top = y + 22 + number * (_BAR + _GAP)
        length, colour = max(1.0, value / greatest * (_WIDTH - _LABEL - 70)), _COLOURS[number % len(_COLOURS)]
        out += [
            f'<text x="{x + _LABEL - 6}" y="{top + 12}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{x + _LABEL}" y="{top}" width="{length:.1f}" height="{_BAR}" fill="{colour}"/>',
            f'<text x="{x + _LABEL + length + 5:.1f}" y="{top + 12}">{value:,.4g} {escape(unit)}</text>',
        ]
    return out


def bars(title: str, panels: Sequence[Sequence[tuple[str, Mapping[str, float], str]]], note: str) -> str:
    """A grid of horizontal bar charts: rows of (title, value by name, unit), each on a scale of its own."""
    height = max(len(values) for row in panels for _, values, _ in row) * (_BAR + _GAP) + 44
    width, total = max(map(len, panels)) * _WIDTH + 20, len(panels) * height + 60
    body = [f'<text x="10" y="24" font-size="16" font-weight="bold">{escape(title)}</text>']
    for row_number, row in enumerate(panels):
        for column, (name, values, unit) in enumerate(row):
            body += _panel(name, values, unit, 10 + column * _WIDTH, 40 + row_number * height)
    body.append(f'<text x="10" y="{total - 8}" fill="#666">{escape(note)}</text>')
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{total}" '
        f'viewBox="0 0 {width} {total}" font-family="sans-serif" font-size="11">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *body, "</svg>\n"])
