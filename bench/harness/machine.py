"""What the results depend on: the machine, the versions and the date."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path


def load() -> float:
    """How many processes have wanted to run in the last minute: what else the machine is busy with."""
    return os.getloadavg()[0]


def describe(orchestrators: list[str], hibp_downloader: str, load_before: float) -> dict[str, str]:
    """Everything that the page names, in its order."""
    versions = [_first_line([path, "--version"]) for path in orchestrators]
    return {
        "date": datetime.now(UTC).strftime("%-d %B %Y"),
        "CPU": f"{_cpu_model()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / (1 << 30):.0f} GiB",
        "load average before": f"{load_before:.1f}",
        "kernel": f"{platform.system()} {platform.release()}",
        "orchestrator": ", ".join(versions).replace("orchestrator ", ""),
        "nginx": _first_line(["nginx", "-v"]).rpartition("/")[2],
        "curl": _first_line(["curl", "--version"]).split()[1],
        "tar": _first_line(["tar", "--version"]).split()[-1],
        "OpenSSL": _first_line(["openssl", "version"]).split()[1],
        "Python": platform.python_version(),
        "hibp-downloader": hibp_downloader or "none",
    }


def _first_line(command: list[str]) -> str:
    # nginx prints its version to stderr.
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    return ran.stdout.splitlines()[0].strip()


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
