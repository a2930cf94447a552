"""The statistics: figures of each measurement, their medians and spreads, and ratios of medians."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median

MIB = 1 << 20


@dataclass
class Sample:
    """The figures of one measurement."""

    ranges_per_second: float
    user_seconds: float
    """CPU seconds per million ranges, like the next."""
    system_seconds: float
    rss_mib: float
    linear_mib: float | None = None

    @property
    def cpu_seconds(self) -> float:
        """User and system together."""
        return self.user_seconds + self.system_seconds


@dataclass(frozen=True)
class Spread:
    """A median, and the smallest and the largest value."""

    median: float
    least: float
    most: float


@dataclass
class Row:
    """What was measured of one program in one scenario."""

    program: str
    samples: list[Sample] = field(default_factory=list)
    failure: str = ""
    """Why there are no further samples."""

    def spread(self, figure: str) -> Spread | None:
        """The spread of a figure, if it was measured."""
        values = [getattr(sample, figure) for sample in self.samples]
        if not values or None in values:
            return None
        return spread_of(values)

    def ratio(self, other: "Row | None", figure: str) -> float | None:
        """By how much the median of a figure is larger than that of another program."""
        mine, theirs = self.spread(figure), other.spread(figure) if other else None
        return mine.median / theirs.median if mine and theirs and theirs.median else None


def spread_of(values: Sequence[float]) -> Spread:
    """The spread of at least one value."""
    return Spread(median(values), min(values), max(values))


def row_named(rows: list[Row], program: str) -> Row | None:
    """The row of a program, if there is one."""
    return next((row for row in rows if row.program == program), None)


def to_json(results: dict[str, list[Row]]) -> dict:
    """Results as plain values."""
    return {scenario: [asdict(row) for row in rows] for scenario, rows in results.items()}


def from_json(values: dict) -> dict[str, list[Row]]:
    """Results from plain values."""
    return {
        scenario: [Row(row["program"], [Sample(**sample) for sample in row["samples"]], row["failure"]) for row in rows]
        for scenario, rows in values.items()
    }
