"""Two kinds of plots as SVG, for docs/performance.md: bars made of parts, and strips of dots.

Plain text, no library: a plot is a list of elements with a title and a scale that begins at zero.
Colours keep their contrast in grey, and on the white ground that each plot brings along.
"""

from __future__ import annotations

COLOURS = (
    "#1f5fa8", "#e58e26", "#3a9d5d", "#b8417f", "#7b68b5", "#8a8a8a", "#5ab4c5", "#c9b037",
    "#a0522d", "#2f4f4f", "#d98880", "#76923c", "#444444",
)  # fmt: skip
WIDTH, LEFT, RIGHT = 760, 150, 70
ROW, GAP, TOP = 24, 10, 34
FONT = 'font-family="Helvetica, Arial, sans-serif"'


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def label(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" {FONT}>'
        f"{escaped(text)}</text>"
    )


def nice(most: float) -> float:
    """Return a step for about five lines of a scale that reaches `most`."""
    step = 10.0 ** (len(str(int(most))) - 1) if most >= 1 else 0.1
    for factor in (0.1, 0.2, 0.5, 1, 2, 5):
        if most / (step * factor) <= 6:
            return step * factor
    return step * 10


def number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2g}"


def scale(most: float, bottom: float, unit: str) -> list[str]:
    """Return the lines of a scale from zero to `most`."""
    out, step, value = [], nice(most), 0.0
    while value <= most * 1.001:
        x = place(value, most)
        out.append(
            f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom:.1f}" stroke="#dddddd"/>'
        )
        out.append(label(x, bottom + 14, number(value) if value else "0", anchor="middle", size=11))
        value += step
    out.append(label(WIDTH - 6, bottom + 14, unit, anchor="end", size=11))
    return out


def place(value: float, most: float) -> float:
    return LEFT + value / (most or 1) * (WIDTH - LEFT - RIGHT)


def page(title: str, height: float, body: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
        f'viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escaped(title)}">'
    )
    ground = f'<rect width="{WIDTH}" height="{height:.0f}" fill="#ffffff"/>'
    return "\n".join([head, ground, label(10, 20, title, size=14), *body, "</svg>"]) + "\n"


def bars(title: str, unit: str, rows: dict[str, dict[str, float]]) -> str:
    """Return a plot of horizontal bars: {name: {part: value}}, each part in its own colour."""
    parts = list(dict.fromkeys(part for row in rows.values() for part in row))
    colours = {part: COLOURS[at % len(COLOURS)] for at, part in enumerate(parts)}
    most = max(sum(row.values()) for row in rows.values())
    bottom = TOP + GAP + len(rows) * (ROW + GAP)
    body = scale(most, bottom, unit)
    for at, (name, row) in enumerate(rows.items()):
        y, reached = TOP + GAP + at * (ROW + GAP), 0.0
        body.append(label(LEFT - 8, y + ROW * 0.7, name, anchor="end"))
        for part, value in row.items():
            x = place(reached, most)
            reached += value
            told = escaped(f"{name}, {part}: {number(value)} {unit}")
            body.append(
                f'<rect x="{x:.1f}" y="{y}" width="{place(reached, most) - x:.1f}" height="{ROW}" '
                f'fill="{colours[part]}"><title>{told}</title></rect>'
            )
        body.append(label(place(reached, most) + 5, y + ROW * 0.7, number(reached)))
    height = bottom + 26
    if len(parts) > 1:
        x, height = 10.0, height + 18
        for part in parts:
            width = 26 + 7 * len(part)
            if x + width > WIDTH:
                x, height = 10.0, height + 18
            body.append(
                f'<rect x="{x:.0f}" y="{height - 22:.0f}" width="11" height="11" '
                f'fill="{colours[part]}"/>'
            )
            body.append(label(x + 15, height - 12, part, size=11))
            x += width
    return page(title, height, body)


def strips(title: str, unit: str, rows: dict[str, list[float]]) -> str:
    """Return a plot with a dot for each value and a line at the median: {name: values}."""
    most = max(max(values) for values in rows.values())
    bottom = TOP + GAP + len(rows) * (ROW + GAP)
    body = scale(most, bottom, unit)
    for at, (name, values) in enumerate(rows.items()):
        y, colour = TOP + GAP + at * (ROW + GAP) + ROW / 2, COLOURS[at % len(COLOURS)]
        body.append(label(LEFT - 8, y + 4, name, anchor="end"))
        middle = sorted(values)[len(values) // 2]
        for turn, value in enumerate(values):
            shift = (turn % 5 - 2) * 3
            body.append(
                f'<circle cx="{place(value, most):.1f}" cy="{y + shift:.1f}" r="3" '
                f'fill="{colour}" fill-opacity="0.6"/>'
            )
        x = place(middle, most)
        body.append(
            f'<line x1="{x:.1f}" y1="{y - 12:.1f}" x2="{x:.1f}" y2="{y + 12:.1f}" '
            f'stroke="#000000" stroke-width="2"/>'
        )
        body.append(label(WIDTH - RIGHT + 12, y + 4, number(middle)))
    return page(title, bottom + 26, body)
