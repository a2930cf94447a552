"""The chart: an SVG with two bars per program, speed and peak RSS, in a block per scenario."""

from html import escape

from .figures import Row, Spread
from .scenarios import SCENARIOS

LABEL_WIDTH, BAR_WIDTH, VALUE_WIDTH, LINE_HEIGHT, BLOCK_GAP = 180, 240, 70, 17, 24

WIDTH = LABEL_WIDTH + 2 * (BAR_WIDTH + VALUE_WIDTH)

STYLE = """
text { font: 12px sans-serif; fill: #1f2328 }
.title { font-weight: bold }
.speed { fill: #2f81f7 } .memory { fill: #d29922 } .spread { stroke: #1f2328 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .spread { stroke: #e6edf3 } }
"""


def chart(results: dict[str, list[Row]]) -> str:
    """The whole file."""
    body: list[str] = []
    y = 16
    for scenario in SCENARIOS:
        rows = [row for row in results.get(scenario.name, []) if row.samples]
        if rows:
            body += _block(scenario.title, rows, y)
            y += LINE_HEIGHT * (len(rows) + 1) + BLOCK_GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y - BLOCK_GAP}" width="{WIDTH}" role="img">'
    title = "<title>Ranges per second and peak RSS of each program</title>"
    return "\n".join([head, title, f"<style>{STYLE}</style>", *body, "</svg>", ""])


def _block(title: str, rows: list[Row], y: int) -> list[str]:
    """A scenario: its title, then a line for each program."""
    speed_x, memory_x = LABEL_WIDTH, LABEL_WIDTH + BAR_WIDTH + VALUE_WIDTH
    lines = [
        _text(0, y, title, "title"),
        _text(speed_x, y, "ranges/s", "title"),
        _text(memory_x, y, "peak RSS, MiB", "title"),
    ]
    columns = [(speed_x, "ranges_per_second", "speed"), (memory_x, "rss_mib", "memory")]
    most = {figure: max(row.spread(figure).most for row in rows) for _, figure, _ in columns}
    for index, row in enumerate(rows):
        line_y = y + (index + 1) * LINE_HEIGHT
        lines.append(_text(0, line_y, row.program))
        for x, figure, style in columns:
            lines += _bar(x, line_y, row.spread(figure), BAR_WIDTH / most[figure], style)
    return lines


def _bar(x: int, y: int, spread: Spread, scale: float, style: str) -> list[str]:
    """A bar as long as the median, a thin line from the least to the most, and the median in digits."""
    middle = y - 4.5
    return [
        f'<rect class="{style}" x="{x}" y="{y - 10}" width="{spread.median * scale:.1f}" height="11"/>',
        f'<path class="spread" d="M{x + spread.least * scale:.1f} {middle}H{x + spread.most * scale:.1f}"/>',
        _text(x + spread.most * scale + 5, y, f"{spread.median:,.0f}"),
    ]


def _text(x: float, y: float, text: str, style: str = "") -> str:
    named = f' class="{style}"' if style else ""
    return f'<text{named} x="{x:.0f}" y="{y:.0f}">{escape(text)}</text>'
