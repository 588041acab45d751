"""User-data: what cloud-init will make of it, as far as can be known before a guest boots.

Any bytes are taken. A byte order mark goes, since cloud-init does not know what begins with one, and UTF-16 becomes
UTF-8. The notices say what a guest would ignore without a word. They quote nothing: user-data is secret.
"""

import codecs
import email
import email.message
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from domain.vm.values import Notice

#: Bytes that are read as YAML, or unpacked, of all parts together: to read them takes seconds. The rest is not judged.
MOST_LOOKED_AT = 128 * 1024
#: The deepest that parts may stand in each other.
MOST_DEPTH = 8
GZIP = b"\x1f\x8b"
#: What cloud-init looks for at the beginning, in either case and behind blanks; longer ones first.
CONFIG, ARCHIVE, PATCH, TEMPLATE = "#cloud-config", "#cloud-config-archive", "#cloud-config-jsonp", "## template: jinja"
STARTS = {
    ARCHIVE: "text/cloud-config-archive",
    PATCH: "text/cloud-config-jsonp",
    CONFIG: "text/cloud-config",
    "#cloud-boothook": "text/cloud-boothook",
    "#part-handler": "text/part-handler",
    "#include": "text/x-include-url",
    "#upstart-job": "text/upstart-job",
    TEMPLATE: "text/jinja2",
    "#!": "text/x-shellscript",
}
#: What cloud-init takes for a MIME message when it stands in the first bytes of it.
MIME, MIME_WITHIN = b"mime-version:", 4096
#: Types of parts that say nothing: their content is looked at.
PLAIN = ("text/plain", "text/x-not-multipart")

UNKNOWN = "user_data_unknown"
MALFORMED = "user_data_malformed"
SILENT = "guest_cannot_say_ready"


@dataclass
class _Look:
    """One look at user-data: what may still be read of it."""

    left: int = MOST_LOOKED_AT

    def takes(self, size: int) -> bool:
        self.left -= size
        return self.left >= 0


def cleaned(data: bytes) -> bytes:
    """Without a byte order mark; text in UTF-16 that begins with one in UTF-8."""
    if data.startswith(codecs.BOM_UTF8):
        return data.removeprefix(codecs.BOM_UTF8)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return data.decode("utf-16").encode()
        except UnicodeError:
            return data
    return data


def notices(data: bytes) -> tuple[Notice, ...]:
    """What its owner should know of user-data that was cleaned; nothing where it is fine. Total: any bytes will do."""
    try:
        found = list(_look(data, 0, _Look())) if data.strip() else []
    except RecursionError:
        found = [Notice(code=MALFORMED, detail="its parts stand in each other too deeply for cloud-init to read")]
    return tuple({notice.code: notice for notice in reversed(found)}.values())[::-1]


def _look(data: bytes, depth: int, look: _Look) -> Iterator[Notice]:
    if depth > MOST_DEPTH:
        return
    if data.startswith(GZIP):
        yield from _compressed(data, depth, look)
        return
    if MIME in data[:MIME_WITHIN].lower():
        yield from _parts(data, depth, look)
        return
    yield from _content(data, _kind(data), depth, look)


def _compressed(data: bytes, depth: int, look: _Look) -> Iterator[Notice]:
    reader = zlib.decompressobj(wbits=31)
    try:
        plain = reader.decompress(data, max(look.left, 0) + 1)
    except zlib.error:
        yield Notice(code=MALFORMED, detail="it begins as gzip and cannot be unpacked: cloud-init ignores it")
        return
    if not look.takes(len(plain)):
        return
    if not reader.eof:
        yield Notice(code=MALFORMED, detail="it begins as gzip and ends too early: cloud-init ignores it")
        return
    if cleaned(plain) != plain:
        detail = "what is compressed begins with a byte order mark: cloud-init ignores it; take the mark away"
        yield Notice(code=UNKNOWN, detail=detail)
        return
    yield from _look(plain, depth + 1, look)


def _parts(data: bytes, depth: int, look: _Look) -> Iterator[Notice]:
    message = email.message_from_bytes(data)
    if message.get("mime-version") is None or (message.is_multipart() and not message.get_boundary()):
        detail = "it has a line MIME-Version: that is no header: cloud-init takes it for a MIME message, and ignores it"
        yield Notice(code=UNKNOWN, detail=detail)
        return
    parts = [part for part in message.walk() if not part.is_multipart()]
    if message.get_content_maintype() == "multipart" and not message.is_multipart():
        yield Notice(code=MALFORMED, detail="it is a MIME message without parts: cloud-init ignores it")
        return
    for part in parts:
        yield from _part(part, depth, look)


def _part(part: email.message.Message, depth: int, look: _Look) -> Iterator[Notice]:
    payload = part.get_payload(decode=True)
    content = payload if isinstance(payload, bytes) else b""
    if not content.strip():
        return
    said = part.get_content_type()
    if content.startswith(GZIP) or said in PLAIN:
        yield from _look(content, depth + 1, look)
    else:
        yield from _content(content, said, depth, look)


def _kind(data: bytes) -> str | None:
    start = data[:4096].decode(errors="replace").lstrip().lower()
    return next((kind for word, kind in STARTS.items() if start.startswith(word)), None)


def _content(data: bytes, kind: str | None, depth: int, look: _Look) -> Iterator[Notice]:
    """Of one part that is neither compressed nor of several."""
    match kind:
        case None:
            detail = f"cloud-init ignores it: it begins with none of {', '.join(sorted(STARTS))}, gzip or MIME-Version:"
            yield Notice(code=UNKNOWN, detail=detail)
        case "text/cloud-config":
            yield from _config(data, look)
        case "text/cloud-config-archive":
            yield from _archive(data, depth, look)
        case "text/cloud-config-jsonp":
            try:
                json.loads(data.decode().lstrip()[len(PATCH) :])
            except ValueError:
                yield Notice(code=MALFORMED, detail=f"it begins with {PATCH} and is no JSON: cloud-init ignores it")
        case _:
            return


def _config(data: bytes, look: _Look) -> Iterator[Notice]:
    loaded = _yaml(data, look)
    if isinstance(loaded, Notice):
        yield loaded
    elif loaded is not None and not isinstance(loaded, dict):
        yield Notice(
            code=MALFORMED, detail=f"it begins with {CONFIG} and is no mapping of names: cloud-init ignores it"
        )
    elif isinstance(loaded, dict) and _silences(loaded):
        detail = "its user-data turns vendor-data off, by which a guest says that it is ready: wait for running instead"
        yield Notice(code=SILENT, detail=detail)


def _archive(data: bytes, depth: int, look: _Look) -> Iterator[Notice]:
    loaded = _yaml(data, look)
    if isinstance(loaded, Notice):
        yield loaded
        return
    if loaded is None:
        return
    if not isinstance(loaded, list):
        yield Notice(code=MALFORMED, detail=f"it begins with {ARCHIVE} and is no list of parts: cloud-init ignores it")
        return
    for entry in loaded:
        part = {"content": entry} if isinstance(entry, str) else entry
        if not isinstance(part, dict) or not isinstance(part.get("content"), str):
            continue
        content = part["content"].encode(errors="replace")
        said = part.get("type")
        if isinstance(said, str) and said not in PLAIN:
            yield from _content(content, said, depth + 1, look)
        else:
            yield from _look(content, depth + 1, look)


def _yaml(data: bytes, look: _Look) -> object:
    """What the YAML says, None where it is too much to judge, or a notice where it says nothing."""
    if not look.takes(len(data)):
        return None
    try:
        return yaml.safe_load(data.decode())
    except UnicodeDecodeError as error:
        return Notice(code=MALFORMED, detail=f"it is not UTF-8 at byte {error.start}: cloud-init cannot read it")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        return Notice(code=MALFORMED, detail=f"it is not YAML{where}: cloud-init ignores all of it")
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError):
        return Notice(code=MALFORMED, detail="it is not YAML: cloud-init ignores all of it")


def _silences(config: dict[object, object]) -> bool:
    """Whether it turns off vendor-data, or boothooks in it, as cloud-init reads it."""
    if "vendor_data" not in config:
        return False
    vendor = config["vendor_data"]
    if not isinstance(vendor, dict):
        return True
    disabled = vendor.get("disabled_handlers")
    if isinstance(disabled, list) and STARTS["#cloud-boothook"] in disabled:
        return True
    enabled = vendor.get("enabled", True)
    return enabled is not True and str(enabled).strip().lower() not in ("true", "1", "on", "yes")
