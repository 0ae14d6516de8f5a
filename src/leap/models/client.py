"""The connection behind a model at an endpoint: what the official client leaves open.

A deadline for a whole call, a longest answer, errors that come with status 200, and settings of this machine (proxies,
certificates, open files) that no call can work with.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import httpx2

from leap.errors import PrerequisiteError
from leap.models.wire import failure_in, parsed

LONGEST_ANSWER = 64 << 20
"""Bytes of an answer, unpacked, that are read at most."""
BILLED: ContextVar[list[object]] = ContextVar("BILLED")
"""Usage that was told in answers of failure, which are tried again: they are billed all the same."""
_PROXIES = ("all_proxy", "http_proxy", "https_proxy")
# By which gateways say in a 400 what is a 429.
_CROWDED = re.compile(rb"too many requests|rate.?limit", re.IGNORECASE)
# Of the body as it is handed on, which is whole and unpacked.
_TRANSFER = ("content-encoding", "content-length", "transfer-encoding")


class Client(httpx2.AsyncClient):
    """Sends a request and reads its answer within the request's time-out, however slowly the answer drips. What the client
    above retries or explains by its status has that status."""

    async def send(self, request: httpx2.Request, *, stream: bool = False, **more: Any) -> httpx2.Response:
        """See `httpx2.AsyncClient.send`; an answer is always read as a whole."""
        seconds = request.extensions.get("timeout", {}).get("read")
        try:
            async with asyncio.timeout(seconds):
                response = await super().send(request, stream=True, **more)
                try:
                    body = bytearray()
                    async for part in response.aiter_bytes():
                        body += part
                        if len(body) > LONGEST_ANSWER:
                            raise httpx2.DecodingError(f"it is longer than {LONGEST_ANSWER >> 20} MB", request=request)
                finally:
                    await response.aclose()
        except TimeoutError as error:
            raise httpx2.ReadTimeout(f"no whole answer within {seconds:g} s", request=request) from error
        except (ExceptionGroup, ValueError, OverflowError) as error:  # the address is of no host or port that can be
            why = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            raise httpx2.LocalProtocolError(str(why), request=request) from error
        headers = {name: value for name, value in response.headers.items() if name.lower() not in _TRANSFER}
        status, content = response.status_code, bytes(body)
        if status == 400 and _CROWDED.search(content[:2000]):
            status = 429
        with suppress(RecursionError):  # a failure that is nested without end is a damaged answer
            if response.is_success and (failure := failure_in(parsed(content))):
                status, content = failure.status, json.dumps({"error": failure.error}).encode()
                BILLED.get([]).append(failure.usage)
        return httpx2.Response(status, headers=headers, content=content, request=response.request)


def connect(*, local: bool, places: int) -> Client:
    """A client for an endpoint; each request brings its own time-out.

    Args:
        local: Whether the endpoint is on this machine: a proxy for the outside world is none for it.
        places: Connections that are kept open.

    Raises:
        PrerequisiteError: A proxy or certificates that the environment names cannot be used.
    """
    try:
        return Client(limits=httpx2.Limits(max_keepalive_connections=places), follow_redirects=True, trust_env=not local)
    except ImportError as error:
        raise PrerequisiteError(f"the proxy in {_among(_PROXIES)} speaks SOCKS, which needs: pip install socksio") from error
    except OSError as error:  # of TLS, too
        if (full := out_of_files(error)) is not None:
            raise full from error
        variable = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
        raise PrerequisiteError(f"the certificates that {variable} names cannot be used: {error.strerror or error}.") from error
    except (ValueError, httpx2.InvalidURL) as error:
        named = [name for name in _set(_PROXIES) if not _is_proxy(os.environ[name])]
        raise PrerequisiteError(
            f"the proxy in {' or '.join(named) or _among(_PROXIES)} is no address of one; it looks like http://host:3128 "
            "(or https, socks5, socks5h)."
        ) from error


def through_proxy() -> str:
    """Which variable sends calls through a proxy, for a message; empty where none does."""
    return f" through the proxy in {_among(_PROXIES)}" if _set(_PROXIES) else ""


def _set(names: tuple[str, ...]) -> list[str]:
    known = {name.lower() for name in names}
    return [name for name in os.environ if name.lower() in known and os.environ[name]]


def _among(names: tuple[str, ...]) -> str:
    return " or ".join(_set(names)) or names[0].upper()


def _is_proxy(address: str) -> bool:
    try:
        httpx2.Proxy(address if "://" in address else f"http://{address}")
    except (ValueError, httpx2.InvalidURL):
        return False
    return True


def for_a_header(variable: str, value: str) -> str:
    """A value that is sent in a header.

    Raises:
        PrerequisiteError: It holds a character that no header takes, such as a curly quote or an end of line.
    """
    for character in value:
        if not character.isascii() or not character.isprintable():
            raise PrerequisiteError(
                f"the environment variable {variable} holds {character!r}, which no header takes; set it again, in plain quotes."
            )
    return value


def key_in(variable: str) -> str:
    """The key that an environment variable holds, without blanks around it; empty where there is none.

    Raises:
        PrerequisiteError: It holds what no key does: a blank, a quote that the shell was to take away.
    """
    key = for_a_header(variable, os.environ.get(variable, "").strip())
    if wrong := next((character for character in key if character in " \"'`"), ""):
        raise PrerequisiteError(
            f"the environment variable {variable} holds {wrong!r}, which is in no key; set it again, to the key alone."
        )
    return key


def open_files() -> tuple[int, int] | None:
    """How many files and connections this process may hold, and how many it holds; None where there is no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        return limit, sum(1 for _ in Path("/dev/fd").iterdir())
    except OSError:  # not even this one can be opened
        return limit, limit


def out_of_files(error: BaseException | None) -> PrerequisiteError | None:
    """What to say where a connection failed for want of open files; None where it failed for another reason."""
    while error is not None and not (isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)):
        error = error.__cause__ or error.__context__
    limit = open_files()
    return error and PrerequisiteError(
        f"this process may hold {limit[0] if limit else 'so many'} files and connections open at once, and holds them; allow "
        "more by `ulimit -n` before the command, or set a lower concurrency."
    )
