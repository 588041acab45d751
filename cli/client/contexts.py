"""The platforms that somebody has logged in to, with a token for each, in one file that only its owner can read."""

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cli.client.errors import Usage
from runtime.files.unusable import sentence

FILE, LOCK = "contexts.json", "contexts.lock"
#: Maximum bytes of the file.
MOST = 1024 * 1024


@dataclass(frozen=True)
class Login:
    """How to renew a token of an OIDC issuer. `renew_at`: from when on, in seconds since 1970."""

    issuer: str
    client_id: str
    audience: str
    token_endpoint: str
    renew_at: float
    refresh_token: str | None = None
    revocation_endpoint: str | None = None


@dataclass(frozen=True)
class Context:
    """A platform. `token` is None after a logout. `login` is None if the token was given by hand.

    `ca`: path of the only authority (PEM) to trust; None: those of this host.
    """

    url: str
    token: str | None = None
    login: Login | None = None
    ca: str | None = None


@dataclass(frozen=True)
class Contexts:
    """All contexts by their names, and the name of the one in use."""

    current: str | None = None
    all: Mapping[str, Context] = field(default_factory=dict)


@dataclass(frozen=True)
class Store:
    """The file of contexts in a folder of this user. Every call raises Usage if the file or the folder is unsafe."""

    folder: Path

    def read(self) -> Contexts:
        """All contexts; none if there is no file."""
        try:
            with self._opened() as folder:
                return _parsed(self._content(folder), self.folder / FILE)
        except FileNotFoundError:
            return Contexts()
        except OSError as error:
            raise Usage(sentence(error, self.folder / FILE)) from error

    def update(self, change: Callable[[Contexts], Contexts]) -> Contexts:
        """Replace the contexts by what `change` makes of them. No other process changes them meanwhile."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._opened() as folder, _locked(folder, LOCK):
                changed = change(self.read())
                self._write(folder, changed)
                return changed
        except OSError as error:
            raise Usage(sentence(error, self.folder / FILE)) from error

    @contextlib.contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Hold the lock with this name in the folder: one process at a time is inside the block."""
        with self._opened() as folder, _locked(folder, name):
            yield

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """The folder, open. Nobody else can write in it, and no link of somebody else leads to it."""
        absolute = self.folder.absolute()
        for each in (absolute, *absolute.parents):
            found = os.lstat(each)
            if stat.S_ISLNK(found.st_mode) and found.st_uid not in (0, os.geteuid()):
                raise Usage(f"{each} is a link of another user: nothing is read or written there")
        folder = os.open(absolute, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            found = os.fstat(folder)
            if found.st_uid != os.geteuid():
                raise Usage(f"{self.folder} belongs to another user: nothing is read or written there")
            if found.st_mode & 0o022:
                raise Usage(f"others can write in {self.folder}: chmod 700 {self.folder}")
            yield folder
        finally:
            os.close(folder)

    def _content(self, folder: int) -> bytes:
        path = self.folder / FILE
        try:
            file = os.open(FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise Usage(f"{path} is a link: it has to be a file") from error
            raise
        with os.fdopen(file, "rb") as opened:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                raise Usage(f"{path} is not a file of yours: it is not read")
            if found.st_mode & 0o077:
                raise Usage(f"others can read the tokens in {path}: replace them, and chmod 600 {path}")
            content = opened.read(MOST + 1)
        if len(content) > MOST:
            raise Usage(f"{path} is larger than {MOST} bytes")
        return content

    def _write(self, folder: int, contexts: Contexts) -> None:
        """Replace the file as a whole: a crash leaves the old one or the new one."""
        text = json.dumps({**asdict(contexts), "version": 1}, indent=2)
        new = f"{FILE}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new, dir_fd=folder)
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            with os.fdopen(file, "w", encoding="utf-8") as opened:
                os.fchmod(file, 0o600)
                opened.write(text)
                opened.flush()
                os.fsync(file)
            os.replace(new, FILE, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new, dir_fd=folder)
            raise
        os.fsync(folder)


@contextlib.contextmanager
def _locked(folder: int, name: str) -> Iterator[None]:
    file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _parsed(content: bytes, path: Path) -> Contexts:
    """Raises Usage for a file that this program did not write."""
    try:
        document = json.loads(content)
        found = {str(name): _context(each) for name, each in document["all"].items()}
        current = document["current"]
        if document["version"] != 1 or not isinstance(current, str | None):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Usage(f"{path} is damaged, or of another version of this program: remove it, and log in again") from error
    return Contexts(current if current in found else None, found)


def _context(document: dict[str, Any]) -> Context:
    login = document["login"]
    made = Context(document["url"], document["token"], Login(**login) if login is not None else None, document["ca"])
    texts = [made.url, made.token or "", made.ca or ""]
    if made.login is not None:
        texts += [made.login.issuer, made.login.client_id, made.login.audience, made.login.token_endpoint]
        texts += [made.login.refresh_token or "", made.login.revocation_endpoint or ""]
        float(made.login.renew_at)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError
    return made


def config_folder(config: Path | None) -> Path:
    """The folder of this program's configuration, by XDG: a relative path there is ignored."""
    base = config if config is not None and config.is_absolute() else Path.home() / ".config"
    return base / "nebula"
