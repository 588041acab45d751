"""Files for browsers, in memory: each compressed once, when it is first asked for."""

import asyncio
import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

WEB = Path(__file__).parent / "web"
#: The types of files that are served. A file with another ending is not.
TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(slots=True)
class File:
    """A file: its media type, its ETag, and its bytes, which are kept compressed after their first use."""

    type: str
    etag: str
    _raw: bytes
    _packed: bytes = b""

    async def packed(self) -> bytes:
        """The bytes, compressed with gzip."""
        if not self._packed:
            self._packed = await asyncio.to_thread(gzip.compress, self._raw, mtime=0)
            self._raw = b""
        return self._packed

    async def plain(self) -> bytes:
        """The bytes as they are."""
        return self._raw or await asyncio.to_thread(gzip.decompress, self._packed)


def file_of(raw: bytes, name: str) -> File:
    """A file of these bytes. Raises KeyError for a name with another ending than those of TYPES."""
    return File(TYPES[Path(name).suffix], f'"{hashlib.sha256(raw).hexdigest()[:32]}"', raw)


def read(folder: Path = WEB) -> dict[str, str]:
    """The texts of all files of a folder that may be served, by their paths inside it. Raises OSError."""
    found = sorted(path for path in folder.rglob("*") if path.suffix in TYPES and path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def digest(files: Mapping[str, File], versions: Mapping[str, str]) -> str:
    """What is different if any file is, or the version of any package."""
    made = hashlib.sha256()
    for name in sorted(files):
        made.update(f"{name}\0{files[name].etag}\n".encode())
    for name in sorted(versions):
        made.update(f"{name}\0{versions[name]}\n".encode())
    return made.hexdigest()[:20]
