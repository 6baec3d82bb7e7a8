"""A reverse proxy that fails on command, in front of the tests' object store.

``python -m tests.support.proxy PORT UPSTREAM`` serves; `Proxy` scripts it from a test. A `Rule` says which requests
it is for and what becomes of them:

========  =======================================================================================
lose      forward, then drop the connection: the store did it, and the client cannot know
error     forward, then answer 500
reset     drop the connection, without forwarding
deny      answer 503, without forwarding
hold      wait for `Proxy.release`, then forward (or, with ``forward=False``, drop)
strip     forward without ``If-None-Match``: a store that ignores put-if-absent
========  =======================================================================================
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from aiohttp import ClientSession, ClientTimeout, web
from yarl import URL

from tests.support.s3 import call, free_port, serving

CONTROL = "/_proxy"
_SLOW_DOWN = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_HOP = {"transfer-encoding", "connection", "content-length", "date", "server"}


@dataclass
class Rule:
    """Which requests fail, and how.

    Parameters
    ----------
    action : str
        One of those above.
    path : str
        A regular expression that the request's path must contain.
    method : str
        One or more, such as ``"PUT|POST"``.
    nth : int
        Only the nth that fits, from 1; 0 means each.
    times : int
        No more than so many; 0 means no end.
    share : float
        Of those that fit, how many are hit, at random.
    seed : int
        Of the random choice.
    """

    action: str
    path: str = ""
    method: str = "PUT"
    nth: int = 0
    times: int = 0
    share: float = 1.0
    seed: int = 0


@dataclass
class _Armed:
    rule: Rule
    seen: int = 0
    hits: int = 0
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    forward: bool = True
    chance: random.Random = field(default_factory=random.Random)

    def fits(self, request: web.Request) -> bool:
        rule = self.rule
        if not re.fullmatch(rule.method, request.method) or not re.search(rule.path, request.path):
            return False
        self.seen += 1
        spent = (rule.nth and self.seen != rule.nth) or (rule.times and self.hits >= rule.times)
        if spent or self.chance.random() >= rule.share:
            return False
        self.hits += 1
        return True


class _Server:
    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.armed: list[_Armed] = []
        self.log: list[tuple[str, str]] = []
        self.idle = asyncio.Event()
        self.session: ClientSession

    async def start(self, app: web.Application) -> None:
        self.session = ClientSession(auto_decompress=False, timeout=ClientTimeout(total=120))

    async def control(self, request: web.Request) -> web.Response:
        order = request.match_info["order"]
        body = await request.json() if request.can_read_body else {}
        if order == "arm":
            self.armed = [_Armed(Rule(**r), chance=random.Random(r["seed"])) for r in body]
            self.log = []
        elif order == "wait":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.armed[0].waiting.wait(), body["seconds"])
        elif order == "release":
            for armed in self.armed:
                armed.forward = body["forward"]
                armed.released.set()
        waiting = any(armed.waiting.is_set() for armed in self.armed)
        return web.json_response({"hits": [a.hits for a in self.armed], "waiting": waiting, "log": self.log})

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        armed = next((a for a in self.armed if a.fits(request)), None)
        self.log.append((request.method, request.path))
        if armed is None:
            return await self.forward(request, body)
        action = armed.rule.action
        if action == "hold":
            armed.waiting.set()
            await armed.released.wait()
            if armed.forward:
                return await self.forward(request, body)
        elif action == "strip":
            return await self.forward(request, body, without="if-none-match")
        elif action == "deny":
            return web.Response(status=503, text=_SLOW_DOWN, content_type="application/xml")
        elif action in ("lose", "error"):
            await self.forward(request, body)
        if action == "error":
            return web.Response(status=500, text="")
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)

    async def forward(self, request: web.Request, body: bytes, without: str = "") -> web.Response:
        url = URL(self.upstream + request.raw_path, encoded=True)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP | {without}}
        async with self.session.request(
            request.method, url, headers=headers, data=body, allow_redirects=False
        ) as response:
            content = await response.read()
            kept = {k: v for k, v in response.headers.items() if k.lower() not in _HOP}
            if request.method == "HEAD":  # there is no body, but its length counts
                kept["Content-Length"] = response.headers.get("Content-Length", "0")
            return web.Response(status=response.status, headers=kept, body=content or None)


def _serve(port: int, upstream: str) -> None:
    server = _Server(upstream)
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("POST", CONTROL + "/{order}", server.control)
    app.router.add_route("*", "/{path:.*}", server.handle)
    app.on_startup.append(server.start)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


@dataclass(frozen=True)
class Proxy:
    """Scripts a proxy from a test.

    Parameters
    ----------
    url : str
        Of the proxy; use it as the store's endpoint.
    """

    url: str

    def arm(self, *rules: Rule) -> None:
        """Replace all rules, and forget the log."""
        self._order("arm", [asdict(r) for r in rules])

    def wait(self, process: subprocess.Popen[str] | None = None, seconds: float = 60.0) -> bool:
        """Wait until the first rule holds a request; false if the process ended before."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._order("wait", {"seconds": 0.1})["waiting"]:
                return True
            if process is not None and process.poll() is not None:
                return False
        raise TimeoutError("nothing was held")

    def release(self, *, forward: bool = True) -> None:
        """Let held requests go on, or drop them."""
        self._order("release", {"forward": forward})

    @property
    def hits(self) -> int:
        """Requests that the first rule changed so far."""
        return int(self._order("look", {})["hits"][0])

    @property
    def log(self) -> list[tuple[str, str]]:
        """Method and path of each request since `arm`."""
        return [(method, path) for method, path in self._order("look", {})["log"]]

    def _order(self, order: str, body: object) -> Any:
        return json.loads(call("POST", f"{self.url}{CONTROL}/{order}", json.dumps(body).encode()))


@contextmanager
def proxying(upstream: str) -> Iterator[Proxy]:
    """Run a proxy as long as the block."""
    port = free_port()
    with serving([sys.executable, "-m", "tests.support.proxy", str(port), upstream], port) as url:
        yield Proxy(url)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), sys.argv[2])
