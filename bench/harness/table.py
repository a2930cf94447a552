"""The table of a scenario, in Markdown."""

from .figures import Row, Spread, row_named

HEAD = (
    "| program | ranges/s | user CPU, s | system CPU, s | peak RSS, MiB | linear memory, MiB "
    "| speed ÷ article | CPU ÷ article | RSS ÷ article | speed ÷ floor | CPU ÷ floor |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def table(rows: list[Row]) -> str:
    """A line for every program."""
    return "\n".join([HEAD] + [_line(row, rows) for row in rows])


def _line(row: Row, rows: list[Row]) -> str:
    if not row.samples:
        return f"| {row.program} | left out: {row.failure} |" + " |" * 9
    article, floor = row_named(rows, "article"), row_named(rows, "floor")
    cells = [
        row.program,
        _spread(row.spread("ranges_per_second"), ",.0f"),
        _spread(row.spread("user_seconds"), ",.0f"),
        _spread(row.spread("system_seconds"), ",.0f"),
        _spread(row.spread("rss_mib"), ",.0f"),
        _spread(row.spread("linear_mib"), ".1f"),
        _ratio(row.ratio(article, "ranges_per_second")),
        _ratio(row.ratio(article, "cpu_seconds")),
        _ratio(row.ratio(article, "rss_mib")),
        _ratio(row.ratio(floor, "ranges_per_second")),
        _ratio(row.ratio(floor, "cpu_seconds")),
    ]
    if row.failure:
        cells[0] += f" ({len(row.samples)} rounds, then: {row.failure})"
    return "| " + " | ".join(cells) + " |"


def _spread(spread: Spread | None, form: str) -> str:
    if spread is None:
        return "-"
    return f"{spread.median:{form}} ({spread.least:{form}}-{spread.most:{form}})"


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"
