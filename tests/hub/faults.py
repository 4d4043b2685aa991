"""What goes wrong on a network, on demand: refusals, a connection that breaks, a server that is slow.

Faults stand before the Hub, where a proxy would: a request that meets one never reaches the routes, but for `slow`,
which serves it late, and `lost`, which does what was asked and breaks the connection before the answer.
"""

import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

__all__ = ["Fault", "Faults"]

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

# Status: the words, and the headers by which the client knows what is meant.
REFUSALS: dict[str, tuple[str, str, dict[str, str]]] = {
    "401": (
        "401 Unauthorized",
        "Invalid credentials in Authorization header",
        {"X-Error-Message": "Invalid credentials in Authorization header"},
    ),
    "403": ("403 Forbidden", "Forbidden: your token does not have the rights to do this", {}),
    "404": ("404 Not Found", "Repository not found", {"X-Error-Code": "RepoNotFound"}),
    "no route": ("404 Not Found", "Sorry, we can't find the page you are looking for.", {}),
    "409": ("409 Conflict", "Another operation on this repository is in progress", {}),
    "429": ("429 Too Many Requests", "We had to rate limit you", {}),
    "500": ("500 Internal Server Error", "Internal Error - We're working hard to fix this as soon as possible!", {}),
    "503": ("503 Service Unavailable", "The Hub is down for maintenance", {}),
}
PIECES = 10  # into which a slow body is cut


@dataclass
class Fault:
    """`times` requests whose "METHOD PATH" contains `route` meet this, after `after` of them that do not.

    `cut` and `slow` are for bodies, up or down.
    """

    what: str
    times: int = 1
    route: str = ""
    after: int = 0
    retry_after: int = 1  # 429
    rate_limit: int | None = None  # 429: seconds, said in the Hub's own header instead
    seconds: float = 1.0  # slow
    message: str | None = None  # instead of the Hub's usual words

    def __post_init__(self) -> None:
        if self.what not in (*REFUSALS, "cut", "lost", "slow"):
            raise ValueError(f"there is no fault {self.what!r}: {', '.join(REFUSALS)}, cut, lost, slow")


class Faults:
    """A WSGI application that stands before another one, and lets requests fail as often as it was told to."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.waiting: list[Fault] = []
        self.lock = threading.Lock()

    def take(self, request: str) -> Fault | None:
        """The fault that this request ("METHOD PATH") is to meet, once fewer from now on."""
        with self.lock:
            for fault in self.waiting:
                if fault.route in request and fault.after:
                    fault.after -= 1
                elif fault.route in request:
                    fault.times -= 1
                    if not fault.times:
                        self.waiting.remove(fault)
                    return fault
        return None

    def __call__(
        self, environ: Environ, start_response: StartResponse, unanswered: Callable[[], None]
    ) -> Iterable[bytes]:
        """Answer a request; `unanswered` is called before the connection of one that gets no answer is broken.

        Not after: the client sees the break at once, and a test that asks what came would be ahead of the server.
        """
        fault = self.take(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        size = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"]
        if fault and size and fault.what == "cut":
            body.read(size // 2)
            unanswered()
            break_connection(environ)
        content = read_slowly(body, size, fault.seconds) if fault and size and fault.what == "slow" else None
        if content is None:
            content = body.read(size) if size else body.read() if environ.get("wsgi.input_terminated") else b""
        # Whatever the answer will be, the whole body has been read: a client that is still sending would not see it.
        environ |= {"wsgi.input": io.BytesIO(content), "CONTENT_LENGTH": str(len(content))}
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        if fault and fault.what in REFUSALS:
            return refuse(fault, start_response)
        if fault and fault.what == "lost":
            b"".join(self.application(environ, lambda *status_and_headers: None))
            unanswered()
            break_connection(environ)
        answer = self.application(environ, start_response)
        if fault and not size and fault.what in ("cut", "slow"):
            return broken(answer, environ) if fault.what == "cut" else slow(answer, fault.seconds)
        return answer


def refuse(fault: Fault, start_response: StartResponse) -> Iterable[bytes]:
    status, message, headers = REFUSALS[fault.what]
    content = json.dumps({"error": fault.message or message}).encode()
    headers = headers | {"Content-Type": "application/json", "Content-Length": str(len(content))}
    if fault.what == "429" and fault.rate_limit is None:
        headers["Retry-After"] = str(fault.retry_after)
    elif fault.what == "429":
        headers["RateLimit"] = f'"api";r=0;t={fault.rate_limit}'
    start_response(status, list(headers.items()))
    return [content]


def break_connection(environ: Environ) -> None:
    """Close the client's socket under it. werkzeug gives up a request that raises a ConnectionError."""
    with suppress(OSError):  # the client has gone already
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError("cut by a fault")


def read_slowly(body: Any, size: int, seconds: float) -> bytes:
    pieces = []
    for position in range(PIECES):
        time.sleep(seconds / PIECES)
        pieces.append(body.read(size * (position + 1) // PIECES - size * position // PIECES))
    return b"".join(pieces)


def broken(answer: Iterable[bytes], environ: Environ) -> Iterable[bytes]:
    content = b"".join(answer)
    yield content[: len(content) // 2]
    break_connection(environ)


def slow(answer: Iterable[bytes], seconds: float) -> Iterable[bytes]:
    content = b"".join(answer)
    for position in range(PIECES):
        time.sleep(seconds / PIECES)
        yield content[len(content) * position // PIECES : len(content) * (position + 1) // PIECES]
