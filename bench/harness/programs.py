"""The programs that are compared, and the command of each."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .measuring import ProgramFailed
from .scenarios import Scenario
from .source import Source

RANGES_PER_PREFIX = 4096

PARALLEL = (1, 2, 4, 8, 16)

CURL_PREFIXES_MAX = 2
"""Of as many prefixes, curl and tar write files at once; more would need too much room."""

SIGN = Path(__file__).parent.parent / "sign"


@dataclass
class Attempt:
    """One command to measure, and how to read its result."""

    command: list[str]
    prefixes: int
    environment: dict[str, str] = field(default_factory=dict)
    linear_memory: Callable[[str], int | None] = lambda _stdout: None
    """Reads the peak linear memory in bytes from what the command printed."""
    check: Callable[[], None] = lambda: None
    """Fails if the command has written less than it was asked to."""
    folder: Path | None = None
    """Where the command writes files; the folder is removed after it."""

    @property
    def ranges(self) -> int:
        """How many ranges the command fetches."""
        return self.prefixes * RANGES_PER_PREFIX


@dataclass
class Setting:
    """What every program works with."""

    work: Path
    article: Path
    store: str
    key: Path
    prefixes: int
    window: int
    attempts: int = 0

    def next_name(self) -> str:
        """A name that no other attempt has used, so that no upload meets an earlier one."""
        self.attempts += 1
        return str(self.attempts)


class Program:
    """One row of a table."""

    name: str

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def prepare(self, scenario: Scenario, source: Source) -> Attempt:
        """What to run, of the setting's number of prefixes if that suits the program."""
        raise NotImplementedError


class Orchestrator(Program):
    """Ours: a run of at least `parallel` prefixes."""

    def __init__(self, setting: Setting, path: str, parallel: int, name: str) -> None:
        super().__init__(setting)
        self.path, self.parallel = path, parallel
        self.name = f"{name}, parallel {parallel}"

    def prepare(self, scenario: Scenario, source: Source) -> Attempt:
        """Into a bucket of the local store. Every run is a new archive."""
        prefixes = max(self.setting.prefixes, self.parallel)
        command = [self.path, "run", "--source", source.url, "--to", f"gs://bench/{self.setting.next_name()}"]
        command += ["-p", str(prefixes), "--parallel", str(self.parallel), "--window", str(self.setting.window)]
        command += ["--encoding", scenario.encoding, "--json"]
        if source.ca_file:
            command += ["--ca-file", str(source.ca_file)]
        environment = {
            "STORAGE_EMULATOR_HOST": self.setting.store,
            "GOOGLE_APPLICATION_CREDENTIALS": str(self.setting.key),
            "XDG_CACHE_HOME": str(self.setting.work / "cache"),
        }
        return Attempt(command, prefixes, environment, _linear_memory_of)


def _linear_memory_of(stdout: str) -> int:
    end = json.loads(stdout.strip().splitlines()[-1])
    if end.get("event") != "end" or not end["complete"]:
        raise ProgramFailed(f"the run is not complete: {end}")
    return end["linear_memory_peak"]


class Article(Program):
    """The article's way, with as many workers as our window. It also builds the floor's command."""

    name = "article"

    def prepare(self, scenario: Scenario, source: Source) -> Attempt:
        """One tar after another, to URLs that are signed beforehand."""
        attempt = self._fetching(scenario, source)
        name = self.setting.next_name()
        for prefix in range(attempt.prefixes):
            url = f"{self.setting.store}/bench/{name}-{prefix:02X}.tar"
            sign = [str(SIGN), str(self.setting.key), "PUT", url]
            signed = subprocess.run(sign, capture_output=True, text=True, check=True).stdout.strip()
            attempt.command += ["--put", signed]
        return attempt

    def _fetching(self, scenario: Scenario, source: Source) -> Attempt:
        prefixes = self.setting.prefixes
        command = [str(self.setting.article / self.name), "--source", source.url, "--encoding", scenario.encoding]
        command += ["--prefixes", f"00-{prefixes - 1:02X}", "--workers", str(self.setting.window)]
        if source.ca_file:
            command += ["--ca-file", str(source.ca_file)]
        return Attempt(command, prefixes)


class Floor(Article):
    """Fetches and drops the same ranges on the same HTTP stack."""

    name = "floor"

    def prepare(self, scenario: Scenario, source: Source) -> Attempt:
        """It uploads nothing."""
        return self._fetching(scenario, source)


CURL_AND_TAR = """
cd "$1"; shift
curl -sf --parallel --parallel-max "$@" -o "#1#2#3#4.txt"
for prefix in $(ls | cut -c-2 | sort -u); do
  ls | grep "^$prefix...[.]txt$" | tar -cf "$prefix.tar" -T -
done
"""


class CurlAndTar(Program):
    """curl into files, then GNU tar."""

    name = "curl + tar"

    def prepare(self, scenario: Scenario, source: Source) -> Attempt:
        """Of fewer prefixes, which need less room."""
        prefixes = min(self.setting.prefixes, CURL_PREFIXES_MAX)
        folder = self.setting.work / "curl"
        folder.mkdir()
        digits = ",".join("0123456789ABCDEF")
        first = ",".join(f"{prefix:02X}" for prefix in range(prefixes))
        url = f"{source.url}/range/{{{first}}}{{{digits}}}{{{digits}}}{{{digits}}}"
        command = ["bash", "-euc", CURL_AND_TAR, "-", str(folder), str(self.setting.window), url]
        if source.ca_file:
            command += ["--http2", "--compressed", "--cacert", str(source.ca_file)]
        return Attempt(command, prefixes, check=lambda: self._check(folder, prefixes), folder=folder)

    @staticmethod
    def _check(folder: Path, prefixes: int) -> None:
        ranges, tars = (sum(1 for _ in folder.glob(f"*.{kind}")) for kind in ("txt", "tar"))
        if (ranges, tars) != (prefixes * RANGES_PER_PREFIX, prefixes):
            raise ProgramFailed(f"curl and tar left {ranges} ranges and {tars} tars")


SITECUSTOMIZE = """\
import os
if "HIBP_API_URL" in os.environ:
    import hibp_downloader
    hibp_downloader.PWNEDPASSWORDS_API_URL = os.environ["HIBP_API_URL"]
"""


class HibpDownloader(Program):
    """hibp-downloader from PyPI, with its default settings, into files."""

    name = "hibp-downloader"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.environment = setting.work / "venv"
        self.version = ""

    def install(self) -> None:
        """Installs it into an environment of its own, where its source can be set by a variable."""
        quiet = {"check": True, "capture_output": True, "text": True}
        try:
            subprocess.run([sys.executable, "-m", "venv", str(self.environment)], **quiet)
            pip = [str(self.environment / "bin/pip"), "--disable-pip-version-check", "install", "--quiet"]
            subprocess.run(pip + ["hibp-downloader"], timeout=300, **quiet)
            version = "from importlib.metadata import version; print(version('hibp-downloader'))"
            python = [str(self.environment / "bin/python"), "-c", version]
            self.version = subprocess.run(python, **quiet).stdout.strip()
        except (subprocess.SubprocessError, OSError) as error:
            raise ProgramFailed("it could not be installed from PyPI") from error
        (self.environment / "sitecustomize.py").write_text(SITECUSTOMIZE)

    def prepare(self, scenario: Scenario, source: Source) -> Attempt:
        """Of one prefix: it is slow."""
        if not self.version:
            self.install()
        folder = self.setting.work / "hibp"
        command = [str(self.environment / "bin/hibp-downloader"), "--data-path", str(folder), "download"]
        command += ["--first-hash", "00000", "--last-hash", "00fff"]
        if source.ca_file:
            command += ["--http-certificates", str(source.ca_file)]
        environment = {"HIBP_API_URL": source.url, "PYTHONPATH": str(self.environment), "HIBPDL_QUIET": "true"}
        return Attempt(command, 1, environment, check=lambda: self._check(folder), folder=folder)

    @staticmethod
    def _check(folder: Path) -> None:
        ranges = sum(name.endswith(".gz") for _, _, names in os.walk(folder) for name in names)
        if ranges != RANGES_PER_PREFIX:
            raise ProgramFailed(f"hibp-downloader left {ranges} ranges")


def all_programs(setting: Setting, orchestrators: list[str]) -> list[Program]:
    """Every program, in the order of the table."""
    programs: list[Program] = []
    for index, path in enumerate(orchestrators):
        name = "orchestrator" if len(orchestrators) == 1 else f"orchestrator {index + 1}"
        programs += [Orchestrator(setting, path, parallel, name) for parallel in PARALLEL]
    return programs + [Article(setting), Floor(setting), CurlAndTar(setting), HibpDownloader(setting)]
