"""What a Hub keeps: repositories, their commits, branches, tags and pull requests, and the large files beside them.

Everything is in memory. A store with a root serves the folders `models/ORG/NAME` and `datasets/ORG/NAME` below it, and
writes the newest state of each repository's main branch back there after a commit.
"""

import hashlib
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

__all__ = ["KINDS", "Commit", "NotHereError", "PullRequest", "Repository", "Store", "StoredFile", "User", "timestamp"]

# A kind's name in the payloads, and in the paths of the API.
KINDS = {"model": "models", "dataset": "datasets", "space": "spaces"}
MAIN = "main"

# What the `.gitattributes` of a new repository sends to large file storage, whatever its size; and the size above which
# everything else goes there, too.
LARGE = (
    ".7z .arrow .bin .bz2 .ckpt .ftz .gz .h5 .joblib .model .msgpack .npy .npz .onnx .ot .parquet .pb .pickle .pkl .pt"
    " .pth .rar .safetensors .tar .tflite .tgz .wasm .xz .zip .zst"
)
LARGE_SUFFIXES = frozenset(LARGE.split())
LARGE_BYTES = 10_000_000
GIT_ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in sorted(LARGE_SUFFIXES))


def timestamp(date: datetime) -> str:
    """A moment as the Hub writes it; the client accepts no other form."""
    return date.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


class NotHereError(Exception):
    """What was asked for does not exist: `code` is the Hub's word for it (`RepoNotFound`, `EntryNotFound`, ...)."""

    def __init__(self, code: str, message: str, commit: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.commit = commit


class User:
    """Who sent a request: a name (none is anonymous), a role, and the namespaces that it may write to."""

    def __init__(self, name: str | None = None, role: str | None = None, organizations: tuple[str, ...] = ()) -> None:
        self.name = name
        self.role = role
        self.organizations = organizations

    def owns(self, namespace: str) -> bool:
        """Whether it belongs to the namespace, whatever its token may do there."""
        return self.name is not None and namespace in (self.name, *self.organizations)


@dataclass(frozen=True)
class StoredFile:
    """A file of a commit; a large one stands in git as a pointer to its content."""

    content: bytes
    is_large: bool

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self) -> bytes:
        """What git holds in the place of a large file."""
        lines = "version https://git-lfs.github.com/spec/v1", f"oid sha256:{self.sha256}", f"size {len(self.content)}"
        return ("\n".join(lines) + "\n").encode()

    @cached_property
    def blob_id(self) -> str:
        """Git's own name of what it holds."""
        held = self.pointer if self.is_large else self.content
        return hashlib.sha1(b"blob %d\0" % len(held) + held).hexdigest()  # noqa: S324  # git's, and no secret

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_large else self.blob_id


@dataclass(frozen=True)
class Commit:
    """One state of a repository: `files` is all that it holds."""

    files: Mapping[str, StoredFile]
    title: str
    message: str
    author: str
    parent: str | None
    date: datetime

    @cached_property
    def oid(self) -> str:
        """A name that follows from the content, as git's does."""
        tree = "".join(f"{path}\0{file.blob_id}\n" for path, file in sorted(self.files.items()))
        text = f"{self.parent}\n{self.author}\n{self.date.isoformat()}\n{self.title}\n{self.message}\n{tree}"
        return hashlib.sha1(text.encode()).hexdigest()  # noqa: S324  # git's, and no secret

    def file(self, path: str) -> StoredFile:
        """The file at a path; a `NotHereError` that knows the commit otherwise."""
        if path not in self.files:
            raise NotHereError("EntryNotFound", f"{path} does not exist", commit=self.oid)
        return self.files[path]

    def folders(self) -> dict[str, str]:
        """Every folder of this state, with an id that follows from what stands below it."""
        below: dict[str, list[str]] = {}
        for path, file in sorted(self.files.items()):
            for parent in list(Path(path).parents)[:-1]:
                below.setdefault(parent.as_posix(), []).append(f"{path}\0{file.blob_id}\n")
        return {
            folder: hashlib.sha1("".join(lines).encode()).hexdigest()  # noqa: S324  # git's, and no secret
            for folder, lines in below.items()
        }


@dataclass
class PullRequest:
    """A proposal: a branch of its own, `refs/pr/NUMBER`, and the branch that it is to be merged into."""

    number: int
    title: str
    description: str
    author: str
    base: str
    date: datetime
    status: str = "open"
    merge_commit: str | None = None


@dataclass
class Repository:
    """A repository. `refs` maps full names (`refs/heads/main`, `refs/tags/v1`, `refs/pr/1`) to commits."""

    repo_id: str
    kind: str
    private: bool = False
    gated: bool = False
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    pull_requests: list[PullRequest] = field(default_factory=list)
    large_files: dict[str, bytes] = field(default_factory=dict)  # uploaded content by its sha256, committed or not

    @property
    def namespace(self) -> str:
        return self.repo_id.split("/")[0]

    @property
    def path(self) -> str:
        """Where a browser would find it: kinds other than a model's begin with their name."""
        return self.repo_id if self.kind == "model" else f"{KINDS[self.kind]}/{self.repo_id}"

    def ref(self, revision: str) -> str | None:
        """The full name of a branch, tag or pull request; None where there is none of this name."""
        for name in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if name in self.refs:
                return name
        return None

    def commit(self, revision: str = MAIN) -> Commit:
        """The commit that a branch, tag, pull request or hash (seven digits of it suffice) stands for."""
        name = self.ref(revision)
        if name is not None:
            return self.commits[self.refs[name]]
        if len(revision) >= 7:
            for oid, commit in self.commits.items():
                if oid.startswith(revision):
                    return commit
        raise NotHereError("RevisionNotFound", f"Invalid rev id: {revision}")

    def split_revision(self, path: str) -> tuple[str, str]:
        """`REVISION/PATH` cut in two, where the revision may have slashes of its own (`refs/pr/1`)."""
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            revision = "/".join(parts[:count])
            try:
                self.commit(revision)
            except NotHereError:
                continue
            return revision, "/".join(parts[count:])
        raise NotHereError("RevisionNotFound", f"Invalid rev id: {parts[0]}")

    def add_commit(self, ref: str, files: Mapping[str, StoredFile], title: str, message: str, author: str) -> Commit:
        """Put a new state on a ref, whose commit becomes its parent."""
        commit = Commit(dict(files), title, message, author, self.refs.get(ref), datetime.now(UTC))
        self.commits[commit.oid] = commit
        self.refs[ref] = commit.oid
        for file in files.values():
            if file.is_large:
                self.large_files[file.sha256] = file.content
        return commit

    def history(self, revision: str) -> Iterator[Commit]:
        """From a revision's commit back to the first one."""
        commit: Commit | None = self.commit(revision)
        while commit is not None:
            yield commit
            commit = self.commits[commit.parent] if commit.parent else None

    def merge(self, request: PullRequest, author: str) -> Commit:
        """Put what a pull request changed, since it left its base, on its base."""
        head, base = f"refs/pr/{request.number}", f"refs/heads/{request.base}"
        on_base = {commit.oid for commit in self.history(base)}
        fork = next(commit for commit in self.history(head) if commit.oid in on_base).files
        proposed, merged = self.commit(head).files, dict(self.commit(base).files)
        for path in fork.keys() | proposed.keys():
            if path not in proposed:
                merged.pop(path, None)
            elif fork.get(path) != proposed[path]:
                merged[path] = proposed[path]
        commit = self.add_commit(base, merged, request.title, request.description, author)
        request.status, request.merge_commit = "merged", commit.oid
        return commit

    def open_pull_request(self, title: str, description: str, author: str, base: str) -> PullRequest:
        """A new pull request, whose branch begins where its base stands."""
        number = len(self.pull_requests) + 1
        request = PullRequest(number, title, description, author, base, datetime.now(UTC))
        self.refs[f"refs/pr/{number}"] = self.commit(base).oid
        self.pull_requests.append(request)
        return request


class Store:
    """All repositories of a Hub. Requests are served by many threads: whoever changes something holds `lock`."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root
        self.lock = threading.RLock()
        self.repositories: dict[tuple[str, str], Repository] = {}
        for kind, plural in KINDS.items():
            for folder in sorted(root.glob(f"{plural}/*/*")) if root else ():
                files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
                self.add(f"{folder.parent.name}/{folder.name}", kind, files)

    def get(self, repo_id: str, kind: str) -> Repository:
        """The repository of this name and kind. A model and a data set may share a name, as on the Hub."""
        if (repo_id, kind) not in self.repositories:
            raise NotHereError("RepoNotFound", "Repository not found")
        return self.repositories[repo_id, kind]

    def create(self, repo_id: str, kind: str, author: str, private: bool = False) -> Repository:
        """A new repository with the first commit that the Hub makes: `.gitattributes`."""
        repository = Repository(repo_id, kind, private)
        files = {".gitattributes": StoredFile(GIT_ATTRIBUTES.encode(), is_large=False)}
        repository.add_commit(f"refs/heads/{MAIN}", files, "initial commit", "", author)
        self.repositories[repo_id, kind] = repository
        return repository

    def add(
        self, repo_id: str, kind: str, files: Mapping[str, bytes | Path], *, private: bool = False, gated: bool = False
    ) -> Repository:
        """A repository that is there without having been pushed."""
        repository = self.create(repo_id, kind, repo_id.split("/")[0], private)
        repository.gated = gated
        contents = {path: file if isinstance(file, bytes) else file.read_bytes() for path, file in files.items()}
        stored = {path: StoredFile(content, self.is_large(path, len(content))) for path, content in contents.items()}
        state = {**repository.commit().files, **stored}
        repository.add_commit(f"refs/heads/{MAIN}", state, "Upload files", "", repository.namespace)
        return repository

    @staticmethod
    def is_large(path: str, size: int) -> bool:
        """Whether the file belongs in large file storage."""
        return size > 0 and (size > LARGE_BYTES or Path(path).suffix in LARGE_SUFFIXES)

    def write_back(self, repository: Repository) -> None:
        """Put the newest files of the main branch into the root's folder, where the store has a root."""
        if self.root is None:
            return
        folder = self.root / KINDS[repository.kind] / repository.repo_id
        shutil.rmtree(folder, ignore_errors=True)
        for path, file in repository.commit().files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.content)
