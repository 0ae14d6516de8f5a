"""`leap view`: pages of run directories, served on this machine alone.

Whoever may ask knows the secret in the address, and calls this machine by its own name: a page of another site, which may have a
name of its own lead here (DNS rebinding), does neither.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from leap.core.message import sendable
from leap.errors import LeapError
from leap.report.view import Answer, RunView

log = logging.getLogger(__name__)

HOSTS = {"127.0.0.1", "localhost"}


class Server(ThreadingHTTPServer):
    """Serves runs on this machine alone.

    Args:
        runs: What is shown.
        port: 0 for any that is free.

    Attributes:
        url: The address, with the secret in it.
    """

    daemon_threads = True

    def __init__(self, runs: Sequence[RunView], port: int = 0) -> None:
        self.runs, self.secret = runs, secrets.token_urlsafe(12)
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/{self.secret}/0/"


class _Handler(BaseHTTPRequestHandler):
    server: Any
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "leap", ""
    timeout = 60

    def do_GET(self) -> None:
        try:
            status, (kind, content) = 200, self._answer()
        except PermissionError as error:
            status, kind, content = 403, "text/plain", str(error)
        except (LookupError, ValueError, StopIteration):
            status, kind, content = 404, "text/plain", "There is no such thing here."
        except LeapError as error:
            status, kind, content = 500, "text/plain", str(error)
        except Exception as error:
            log.exception("%s", self.path)
            status, kind, content = 500, "text/plain", f"{type(error).__name__}: {error}"
        body = sendable(content).encode()
        self.send_response(status)
        policy = "" if kind == "text/html" and self.path.endswith("/") else "default-src 'none'; "
        for name, value in {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": f"{policy}frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _answer(self) -> Answer:
        if urlsplit(f"//{self.headers.get('Host', '')}").hostname not in HOSTS:
            raise PermissionError("This page is served to 127.0.0.1 and localhost alone.")
        asked = urlsplit(self.path)
        _, secret, number, what = asked.path.split("/")
        if not secrets.compare_digest(secret.encode(), self.server.secret.encode()):
            raise PermissionError("The address has a secret in it, which `leap view` prints.")
        run = self.server.runs[int(number)]
        if not what:
            return "text/html", run.page([str(one.root) for one in self.server.runs], int(number))
        return run.answers[what]({name: values[-1] for name, values in parse_qs(asked.query).items()})

    def log_message(self, format: str, *args: object) -> None:
        log.debug(format, *args)
