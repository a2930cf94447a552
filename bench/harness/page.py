"""Writes bench/README.md: what the race measured, and beside it the sections that others keep."""

import re
from pathlib import Path

from .chart import chart
from .figures import Row
from .scenarios import DELAY_MILLISECONDS, SCENARIOS, Scenario
from .table import table

PAGE = Path(__file__).parent.parent / "README.md"

CHART = "race.svg"

KEPT = {
    "corpus": "`bench/corpus` has not run yet.",
    "first-request": "`bench/first-request` has not run yet.",
    "serve": "`bench/serve` has not run yet.",
    "what-did-not-help": "Nothing is listed yet.",
}
"""Sections between markers, and what is in a new page. The race leaves them as they are."""


def write_page(results: dict[str, list[Row]], machine: dict[str, str], setting: dict[str, int]) -> None:
    """Writes the page and its chart."""
    kept = _kept_sections()
    tables = "\n\n".join(f"### {scenario.title}\n\n{_results_of(scenario, results)}" for scenario in SCENARIOS)
    PAGE.with_name(CHART).write_text(chart(results))
    PAGE.write_text(_page(tables, machine, setting, kept))


def _results_of(scenario: Scenario, results: dict[str, list[Row]]) -> str:
    rows = results.get(scenario.name)
    return table(rows) if rows else "Not measured in this run."


def write_section(name: str, text: str) -> None:
    """Replaces one of the kept sections, and nothing else."""
    page = PAGE.read_text()
    PAGE.write_text(_SECTION.sub(lambda found: _marked(name, text) if found[1] == name else found[0], page))


_SECTION = re.compile(r"<!-- keep ([a-z-]+) -->\n(.*?)\n<!-- end -->", re.DOTALL)


def _kept_sections() -> dict[str, str]:
    page = PAGE.read_text() if PAGE.exists() else ""
    found = {name: text for name, text in _SECTION.findall(page)}
    return {name: _marked(name, found.get(name, text)) for name, text in KEPT.items()}


def _marked(name: str, text: str) -> str:
    return f"<!-- keep {name} -->\n{text}\n<!-- end -->"


def _page(tables: str, machine: dict[str, str], setting: dict[str, int], kept: dict[str, str]) -> str:
    facts = "\n".join(f"| {name} | {value} |" for name, value in machine.items())
    prefixes, window, rounds = setting["prefixes"], setting["window"], setting["rounds"]
    return f"""# Benchmarks

`make bench` writes this page. Source, sink and programs share the machine, so compare the ratios; absolute figures
differ from machine to machine and from day to day.

![Ranges per second and peak RSS of each program]({CHART})

## The race

{rounds} rounds. In each, all programs run in turns, and every other round reverses their order. A figure is the median
of the rounds, with the smallest and the largest value in parentheses. CPU seconds are per million ranges and count the
program only, not the source and the sink. Ratios are ratios of medians: a speed above 1 is faster, a CPU time or an
RSS below 1 is less.

{tables}

| program | what it does |
|---|---|
| orchestrator | `orchestrator run` with a window of {window}, {prefixes} prefixes or as many as run in parallel. It checks every line, and uploads tars to `orchestrator store --discard`, which checks their signatures and checksums. RSS is of the whole process, linear memory of one component |
| article | [The way of the program that this one replaces](article/README.md): {window} workers, {prefixes} prefixes one after another, each tar in memory. It uploads to the same store and checks nothing |
| floor | Fetches {prefixes} prefixes with {window} workers on the same HTTP stack and drops the bodies, compressed if they are |
| curl + tar | `curl --parallel --parallel-max {window}` into files, then GNU tar: {min(2, prefixes)} prefixes. It uploads nothing |
| hibp-downloader | [From PyPI](https://pypi.org/project/hibp-downloader/), with its default settings: a prefix into compressed files. It requests gzip always, and uploads nothing. It has no option for another source, so the race sets its constant `PWNEDPASSWORDS_API_URL` in a `sitecustomize` module. RSS, as for curl + tar, is of the largest process |

Ranges of 33 KB are the size of 2023, of 75 KB that of 2026. The source is nginx over files in memory: those of one
prefix, which stand for the ranges of every prefix, as they are and compressed. A relay between the programs and nginx
adds {DELAY_MILLISECONDS} ms to every round trip, give or take one; the sink is near. The relay takes CPU time, too, so on few cores it
limits what many requests in flight can gain. The floor and the article's way have {window} requests in flight, `run` as
many for each invocation in parallel: far away, it can be faster than the floor. An RSS below 9 MiB cannot be told from 9 MiB.

| | |
|---|---|
{facts}

## The whole corpus

All 256 prefixes at 75 KB, from `serve --synthetic` to `store --discard`. RSS is sampled once a second; that of the last
quarter of the run may be at most 5 % above that of the second.

{kept["corpus"]}

## The first request

How long after its start `run` sends its first request, with the compiled component in the cache. It may take 100 ms.

{kept["first-request"]}

## Serving an archive

`serve` over an archive of 75 KB ranges beside nginx over the same ranges as files: plain, compressing each answer
(level 1), or with files that were compressed before (level 6). wrk, with one thread, asks for random ranges on the same
machine. RSS is the peak of the process and its workers over all measurements; it does not count the page cache.

{kept["serve"]}

## What did not help

{kept["what-did-not-help"]}

## How to repeat it

```sh
make bench                                                # everything; half an hour
bench/race ORCHESTRATOR --scenario 75kb --program orchestrator   # a part; prints tables, does not write this page
bench/race ORCHESTRATOR BEFORE                            # two versions, in turns
ROUNDS=9 PREFIXES=4 WINDOW=16 bench/race ORCHESTRATOR
bench/cgroup ORCHESTRATOR ARTICLE FLOOR                   # the smallest memory limit; as root
bench/corpus ORCHESTRATOR
bench/first-request ORCHESTRATOR
```

It needs nginx with TLS and HTTP/2, curl, GNU tar, OpenSSL, Python 3.11 and, for hibp-downloader, a connection to PyPI.
Files are in `$TMPDIR`, or else in `/dev/shm` if 6 GB are free there, or else in `/tmp`.
"""
