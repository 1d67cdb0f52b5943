"""A real HTTP server before another: it passes everything on, and fails where it is told to."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PASSED = ("content-type", "authorization", "cookie", "referer", "x-csrftoken", "accept")


@dataclass
class Fault:
    """fails: method and path → whether this request is meant; times: how often; status: what is answered, 0 for
    nothing within the client's patience; after: whether the request is passed on first."""

    fails: Callable[[str, str], bool]
    times: int
    status: int
    after: bool = False
    at: list[float] = field(default_factory=list)  # when each such request came


@contextmanager
def misbehaving(upstream: str, *faults: Fault, patience: float = 3.0) -> Iterator[str]:
    """Its address. patience: seconds for which a request is left without an answer."""
    host = urlsplit(upstream).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            for fault in faults:
                if fault.fails(self.command, self.path.split("?")[0]):
                    fault.at.append(time.monotonic())
                    if len(fault.at) <= fault.times:
                        if fault.after:
                            self.ask(body)
                        if fault.status == 0:
                            time.sleep(patience)
                        return self.answer(fault.status or 504, b"{}", "application/json")
            status, content, kind = self.ask(body)
            return self.answer(status, content, kind)

        do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = handle_any

        def ask(self, body: bytes) -> tuple[int, bytes, str]:
            connection = http.client.HTTPConnection(host, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() in PASSED}
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            return answer.status, content, answer.headers.get("Content-Type") or "application/json"

        def answer(self, status: int, content: bytes, kind: str) -> None:
            try:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except BrokenPipeError:
                self.close_connection = True  # nobody waits for it any more

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
