"""A Hub on the loopback device: the Hub's own protocol, for the real client, on a port of this machine."""

import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from . import cards, committing, discussions, files, repositories
from .access import Settings, add_access
from .faults import Fault, Faults
from .store import Repository, Store, User

__all__ = ["LoopbackHub"]


class LoopbackHub:
    """A running Hub, in a thread of this process; as a context manager it ends with its block.

    The user `tester` belongs to the organisation `team` and may write to both namespaces by `token`, and only read by
    `read_token`. `requests` holds (method, path, status) of every request, in the order of the answers; where a
    fault broke the connection before there was one, the status is None. `settings` has the sizes of pages and of an
    upload's parts.
    """

    def __init__(self, root: Path | None = None, port: int = 0) -> None:
        """Serve on a free port, or on `port`; what stands in the folder `root`, or nothing to begin with."""
        self.token, self.read_token = (f"hf_{secrets.token_hex(17)}" for _ in range(2))
        self.requests: list[tuple[str, str, int | None]] = []
        organizations = ("team",)
        tokens = {
            self.token: User("tester", "write", organizations),
            self.read_token: User("tester", "read", organizations),
        }
        app = Flask(__name__)
        self.faults = Faults(app)
        self.server = make_server("127.0.0.1", port, self.serve, threaded=True, request_handler=Silent)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        cdn = f"http://localhost:{self.server.server_port}"
        self.settings = Settings(Store(root), self.endpoint, cdn, tokens)
        app.extensions["hub"] = self.settings
        add_access(app)
        for part in (cards, committing, discussions, files, repositories):
            app.register_blueprint(part.blueprint)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), name="loopback hub", daemon=True)
        self.thread.start()

    def serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request, and write it down."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            self.requests.append((method, path, int(status.split()[0])))
            return start_response(status, headers, *more)

        return self.faults(environ, start, lambda: self.requests.append((method, path, None)))

    def repo(self, repo_id: str, repo_type: str = "model", revision: str = "main") -> "View":
        """A revision of a repository: a mapping of paths to bytes, with the repository's facts.

        It begins with the `.gitattributes` that the Hub puts into every new repository.
        """
        return View(self.settings.store.get(repo_id, repo_type), revision)

    def add_repo(
        self, repo_id: str, files: Mapping[str, bytes | Path], repo_type: str = "model", *,
        private: bool = False, gated: bool = False,
    ) -> None:  # fmt: skip
        """Serve files as a repository of anybody's, without a push."""
        self.settings.store.add(repo_id, repo_type, files, private=private, gated=gated)

    def fail(self, what: str, times: int = 1, route: str | None = None, **details: Any) -> None:
        """Let the next `times` requests fail whose "METHOD PATH" contains `route` (None: any), `after` so many others.

        `what` is a status ("401", "403", "404", "409", "429" with `retry_after` or `rate_limit` seconds, "500", "503";
        `message` replaces the Hub's words), "no route" (a 404 that speaks of no repository), "cut" (the connection
        breaks in the middle of the body; without a route, in the next upload of a large file), "lost" (what was asked
        is done, and the connection breaks before the answer), or "slow" (the body is read or sent in `seconds`).
        """
        if route is None:
            route = "PUT /lfs-storage" if what == "cut" else ""
        self.faults.waiting.append(Fault(what, times, route, **details))

    def close(self) -> None:
        """Stop serving."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class View(Mapping[str, bytes]):
    """The files of a revision, by their paths, and what is known of their repository."""

    def __init__(self, repository: Repository, revision: str) -> None:
        self.commit = repository.commit(revision)
        self.commits = list(repository.history(revision))
        self.private = repository.private
        self.refs = dict(repository.refs)
        self.pull_requests = list(repository.pull_requests)

    def __getitem__(self, path: str) -> bytes:
        return self.commit.files[path].content

    def __iter__(self) -> Iterator[str]:
        return iter(self.commit.files)

    def __len__(self) -> int:
        return len(self.commit.files)


class Silent(WSGIRequestHandler):
    """Requests are written down by the Hub, not on the terminal."""

    def log(self, type: str, message: str, *args: Any) -> None:
        pass
