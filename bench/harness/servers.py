"""Starts servers, reads their addresses, and ends every one of them, also after a failure or a signal."""

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

START_SECONDS_MAX = 30

WORK_BYTES_MIN = 6 << 30
"""Free memory that it takes to work in /dev/shm."""


def prepare_process() -> None:
    """Lets SIGTERM clean up as Ctrl-C does, and allows as many open files as the system does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def require(*programs: str) -> None:
    """Exits if a program is not installed."""
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}")


def free_port() -> int:
    """A port that nobody listens on, for a server that cannot choose one itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Servers:
    """A work folder and the servers in it. As a context manager, it ends them all and removes the folder."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._started = 0
        self.latest: subprocess.Popen | None = None
        """The server that was started last."""
        parent = os.environ.get("TMPDIR") or _temporary_parent()
        self.work = Path(tempfile.mkdtemp(prefix="prefix-tar-bench-", dir=parent))
        self._stack.callback(shutil.rmtree, self.work, ignore_errors=True)
        # nginx's workers run as nobody if nginx runs as root.
        self.work.chmod(0o755)

    def __enter__(self) -> "Servers":
        return self

    def __exit__(self, *_) -> None:
        # A second Ctrl-C must not leave half of them behind.
        handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._stack.close()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def start(self, command: list[str]) -> tuple[subprocess.Popen, Path]:
        """Starts a server; returns it with the file that its output goes to."""
        self._started += 1
        log = self.work / f"server-{self._started}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._stack.callback(_end, process)
        self.latest = process
        return process, log

    def start_and_read_url(self, command: list[str]) -> str:
        """Starts a server that prints its URL; returns the URL."""
        process, log = self.start(command)
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline and process.poll() is None:
            found = re.search(r"http://[0-9.]+:[0-9]+(?=\s)", log.read_text())
            if found:
                return found.group()
            time.sleep(0.02)
        raise RuntimeError(f"{command[0]} did not start: {log.read_text()}")

    def start_store(self, orchestrator: str) -> tuple[str, Path]:
        """Starts a store that discards tars, with a bucket named `bench`; returns its URL and its key."""
        (self.work / "store" / "bench").mkdir(parents=True)
        key = self.work / "key.json"
        command = [orchestrator, "store", "--discard", "-d", str(self.work / "store"), "--key-file", str(key)]
        return self.start_and_read_url(command + ["--listen", "127.0.0.1:0"]), key


def wait_until_listening(process: subprocess.Popen, log: Path, port: int) -> None:
    """Waits until a server accepts connections."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"{process.args[0]} did not start: {log.read_text()}")


def _temporary_parent() -> str:
    """Memory rather than a disk, if there is enough."""
    try:
        free = shutil.disk_usage("/dev/shm").free
        available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return "/dev/shm" if min(free, available) >= WORK_BYTES_MIN else "/tmp"
    except OSError:
        return "/tmp"


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
