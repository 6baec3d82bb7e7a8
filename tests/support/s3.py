"""An object store for the tests: moto's server, which honours put-if-absent, in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
REGION = "us-east-1"
BUCKET = "lake-tests"
SECRET = "CANARY-7f3a9c-secret"
"""The secret key of all tests: it must never be seen in a message, a log or a file."""


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_for(process: subprocess.Popen[bytes], port: int, seconds: float = 60.0) -> None:
    """Wait until a server listens, or say that it died."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server on port {port} ended with {process.returncode}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the server on port {port} did not start")


@contextmanager
def serving(command: list[str], port: int) -> Iterator[str]:
    """Run a server as long as the block; yield its URL."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@contextmanager
def moto() -> Iterator[str]:
    """Run an empty S3."""
    port = free_port()
    with serving([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port) as url:
        yield url


def make_bucket(endpoint: str, name: str) -> None:
    """Create a bucket; one that is there is no error."""
    call("PUT", f"{endpoint}/{name}")


def call(method: str, url: str, body: bytes | None = None) -> bytes:
    """Send one plain request."""
    request = urllib.request.Request(url, data=body, method=method)
    with urllib.request.urlopen(request, timeout=60) as response:
        content: bytes = response.read()
    return content


def options(endpoint: str, **more: str) -> dict[str, str]:
    """Give Lance's storage options for a server of ours."""
    return {
        "aws_endpoint": endpoint,
        "aws_access_key_id": "tests",
        "aws_secret_access_key": SECRET,
        "aws_region": REGION,
        "allow_http": "true",
        "aws_virtual_hosted_style_request": "false",
        **more,
    }
