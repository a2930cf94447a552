"""Measures one program: wall clock, CPU time and peak RSS."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launch.py")

SECONDS_MAX = 600
"""A program that takes longer has hung."""


class ProgramFailed(Exception):
    """A measured program failed, or did less than it was asked to."""


@dataclass
class Usage:
    """What a program and the processes it waited for have used; the RSS is that of the largest of them."""

    seconds: float
    user_seconds: float
    system_seconds: float
    rss_bytes: int
    stdout: str


def measure(command: list[str], environment: dict[str, str]) -> Usage:
    """Runs a command to its end. Servers are other processes, so their use is not counted."""
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(reading) as report:
        launcher = [sys.executable, "-I", "-S", str(LAUNCHER), str(writing)]
        process = subprocess.Popen(
            launcher + command,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            pass_fds=[writing],
            start_new_session=True,
        )
        os.close(writing)
        try:
            process.wait(timeout=SECONDS_MAX)
        except subprocess.TimeoutExpired as error:
            raise ProgramFailed(f"{command[0]}: not finished in {SECONDS_MAX} s") from error
        finally:
            end_group(process)
        figures = json.loads(report.read())
        exit_code = figures.pop("exit_code")
        if exit_code != 0:
            err.seek(0)
            last = err.read().decode(errors="replace").strip().splitlines()[-1:]
            raise ProgramFailed(f"{command[0]}: exit code {exit_code}: {' '.join(last)}")
        out.seek(0)
        return Usage(**figures, stdout=out.read().decode(errors="replace"))


def end_group(process: subprocess.Popen) -> None:
    """Ends a process that leads a session, and what it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
