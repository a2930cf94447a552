"""What is measured: how large the ranges are, and what is between the programs and the source."""

from dataclasses import dataclass

DELAY_MILLISECONDS = 20


@dataclass(frozen=True)
class Size:
    """The size of a range."""

    name: str
    hashes_per_range: int


@dataclass(frozen=True)
class Scenario:
    """One table of the page."""

    name: str
    title: str
    size: Size
    is_tls: bool = False
    is_far: bool = False

    @property
    def encoding(self) -> str:
        """The encoding that ours, the article's way and the floor request."""
        return "gzip" if self.is_tls else "identity"


SIZES = (Size("33kb", 860), Size("75kb", 1950))
"""Of 2023 and of 2026."""


def _of_size(size: Size) -> list[Scenario]:
    kilobytes = size.name.removesuffix("kb")
    return [
        Scenario(f"{size.name}-plain", f"{kilobytes} KB, plain HTTP", size),
        Scenario(f"{size.name}-tls", f"{kilobytes} KB, TLS with h2 and gzip", size, is_tls=True),
        Scenario(f"{size.name}-far", f"{kilobytes} KB, plain HTTP, {DELAY_MILLISECONDS} ms away", size, is_far=True),
    ]


SCENARIOS = [scenario for size in SIZES for scenario in _of_size(size)]
