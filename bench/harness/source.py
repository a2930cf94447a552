"""The source: nginx over generated range files, plain, with TLS, and behind a relay that delays."""

import gzip
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .scenarios import DELAY_MILLISECONDS, Scenario, Size
from .servers import Servers, free_port, wait_until_listening


@dataclass
class Source:
    """Where a scenario's ranges are."""

    url: str
    ca_file: Path | None = None


def start_source(servers: Servers, orchestrator: str, delay: str, scenario: Scenario) -> Source:
    """Starts nginx, and the relay if the scenario needs it."""
    files = _range_files(servers.work, orchestrator, scenario.size)
    port = free_port()
    folder = servers.work / scenario.name
    folder.mkdir()
    tls = _certificate(servers.work) if scenario.is_tls else None
    configuration = folder / "nginx.conf"
    configuration.write_text(_nginx_configuration(folder, files, port, tls))
    error_log = folder / "error.log"
    process, log = servers.start(["nginx", "-e", str(error_log), "-c", str(configuration)])
    wait_until_listening(process, log, port)
    if scenario.is_far:
        relay = [delay, "127.0.0.1:0", f"127.0.0.1:{port}", str(DELAY_MILLISECONDS)]
        return Source(servers.start_and_read_url(relay))
    if tls:
        return Source(f"https://127.0.0.1:{port}", tls / "ca.pem")
    return Source(f"http://127.0.0.1:{port}")


def _range_files(work: Path, orchestrator: str, size: Size) -> Path:
    """The ranges of prefix 00, which stand for those of every prefix: as they are, and compressed."""
    folder = work / f"ranges-{size.name}"
    if folder.exists():
        return folder
    generate = [orchestrator, "generate", "-d", str(folder), "-p", "1", "--hashes-per-range"]
    subprocess.run(generate + [str(size.hashes_per_range)], check=True, stdout=subprocess.DEVNULL)
    plain = list(folder.glob("*.txt"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_compress, plain))
    # hibp-downloader requests ranges in lower case.
    for path in list(folder.iterdir()):
        lower = folder / path.name.lower()
        if not lower.exists():
            os.link(path, lower)
    return folder


def _compress(path: Path) -> None:
    compressed = path.with_name(path.name + ".gz")
    compressed.write_bytes(gzip.compress(path.read_bytes(), 6, mtime=0))
    # nginx expects both files to be of the same age.
    os.utime(compressed, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))


def _certificate(work: Path) -> Path:
    """A folder with a CA, and a certificate for 127.0.0.1."""
    folder = work / "tls"
    if folder.exists():
        return folder
    folder.mkdir()
    (folder / "extensions").write_text("subjectAltName = IP:127.0.0.1\nbasicConstraints = CA:FALSE\n")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    commands = [
        ["req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=bench", "-days", "2"],
        ["req", *new_key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1"],
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2".split()
        + ["-extfile", "extensions", "-out", "server.pem"],
    ]
    for command in commands:
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)
    return folder


def _nginx_configuration(folder: Path, files: Path, port: int, tls: Path | None) -> str:
    listen = f"listen 127.0.0.1:{port};"
    if tls:
        # Since 1.25.1, HTTP/2 is a directive of its own.
        listen = f"listen 127.0.0.1:{port} ssl http2;"
        if _nginx_version() >= (1, 25, 1):
            listen = f"listen 127.0.0.1:{port} ssl; http2 on;"
        listen += f" ssl_certificate {tls}/server.pem; ssl_certificate_key {tls}/server.key;"
    temporary = " ".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""daemon off; worker_processes 2; worker_rlimit_nofile 16384; pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  {temporary}
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 10000000; default_type text/plain;
  open_file_cache max=20000 inactive=1h; open_file_cache_valid 1h; gzip_static on;
  server {{
    {listen}
    location ~ "^/range/[0-9A-Fa-f][0-9A-Fa-f]([0-9A-Fa-f]{{3}})$" {{ alias {files}/00$1.txt; }}
  }}
}}
"""


def _nginx_version() -> tuple[int, ...]:
    version = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr
    return tuple(int(part) for part in re.search(r"/([0-9.]+)", version).group(1).split("."))
