"""Tables, JSON and a plot.

The plot is written by hand: bars and one line need forty lines of SVG, a plotting library and its numeric one 100 MB.
"""

import json
import os
import platform
import ssl
import sys
from pathlib import Path
from statistics import median
from xml.sax.saxutils import escape


def environment():
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}",
        "openssl": ssl.OPENSSL_VERSION,
        "load": os.getloadavg()[0],
    }


def middle(values):
    """The median, or None of nothing."""
    values = [value for value in values if value is not None]
    return median(values) if values else None


def table(headings, rows):
    """Prints columns; the first is text, the others are numbers."""
    cells = [[_cell(value) for value in row] for row in [headings, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    for place, row in enumerate(cells):
        line = "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        print(line.rstrip())
        if place == 0:
            print("-" * len(line))
    print()


def _cell(value):
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def checks(found):
    """Prints each claim with what was measured; returns whether all hold.

    Args:
        found: Tuples of a claim, the measured value, and its bound.
    """
    rows = [
        (claim, value, bound, "-" if value is None else "yes" if value <= bound else "NO")
        for claim, value, bound in found
    ]
    table(("claim", "measured", "at most", "holds"), rows)
    return all(row[3] == "yes" for row in rows)


def save(directory, name, found, svg):
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    (directory / f"{name}.svg").write_text(svg)
    print(f"written: {directory / name}.json, {directory / name}.svg", file=sys.stderr)


def bars(title, unit, values):
    """An SVG of horizontal bars.

    Args:
        title: Above it.
        unit: Behind each number.
        values: Pairs of a label and a number; labels that begin with "ours" stand out.
    """
    values = [(label, value) for label, value in values if value is not None]
    most = max((value for _, value in values), default=1.0)
    height = 56 + 26 * len(values)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" font-size="13" font-family="Arial">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="16" y="26" font-size="15" font-weight="bold">{escape(title)}</text>',
    ]
    for place, (label, value) in enumerate(values):
        y = 46 + 26 * place
        width = max(1.0, 420 * value / most)
        colour = "#1b7f5c" if label.startswith("ours") else "#9aa5b1"
        parts += [
            f'<text x="206" y="{y + 14}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="214" y="{y}" width="{width:.1f}" height="18" fill="{colour}"/>',
            f'<text x="{220 + width:.1f}" y="{y + 14}">{value:,.1f} {escape(unit)}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
