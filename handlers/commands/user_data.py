"""User-data: what cloud-init will make of it, as far as can be known before a guest boots.

Any bytes are taken. A byte order mark goes, since cloud-init does not know what begins with one, and UTF-16 becomes
UTF-8. The notices say what a guest would ignore without a word. They quote nothing: user-data is secret.
"""

import codecs
import email
import email.message
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from domain.vm.values import Notice
from handlers.commands.bounded_yaml import TooMuch, load

#: Bytes that are read as YAML, or unpacked, of all parts together: to read them takes seconds. The rest is not judged.
MOST_LOOKED_AT = 128 * 1024
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
    TEMPLATE: "text/jinja2",
    "#!": "text/x-shellscript",
}
#: Types that only a part of several can say of itself.
SAID = ("text/x-include-once-url", *(f"text/x-shellscript-per-{when}" for when in ("boot", "instance", "once")))
#: Types that bring parts, or ways to read them, of which nobody here can know.
OPEN = ("text/part-handler", "text/x-include-url", "text/x-include-once-url")
#: What cloud-init takes for a MIME message when it stands in the first bytes of it.
MIME, MIME_WITHIN = b"mime-version:", 4096
#: Types of parts whose content is looked at for what it is; and of those that are unpacked before.
PLAIN = ("text/plain", "text/x-not-multipart", "text/x-shellscript")
_PACKED = "gzip gzip-compressed gzipped x-compress x-compressed x-gunzip x-gzip x-gzip-compressed"
PACKED = tuple(f"application/{kind}" for kind in _PACKED.split())
#: What a template may become.
TEMPLATES = ("text/cloud-config", "text/cloud-config-jsonp", "text/x-shellscript")
#: How the characters of a part stand in a message that needs no more than ASCII.
ENCODED = ("base64", "quoted-printable")
#: What an entry of an archive says of itself, beside its headers.
ENTRY = ("content", "filename", "type", "launch-index")

UNKNOWN = "user_data_unknown"
MALFORMED = "user_data_malformed"
SILENT = "guest_cannot_say_ready"


@dataclass
class _Look:
    """One look at user-data: what may still be read of it, and whether a part of it may bring types of its own."""

    left: int = MOST_LOOKED_AT
    open: bool = False

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
        found = list(_all(data, _Look())) if data.strip() else []
    except RecursionError:
        found = [_stops("its parts stand in each other too deeply")]
    except Exception:  # a library's, of many kinds, which cloud-init reads it with as well; it may quote a secret
        found = [_stops("it cannot be taken apart")]
    return tuple({notice.code: notice for notice in reversed(found)}.values())[::-1]


def _all(data: bytes, look: _Look) -> Iterator[Notice]:
    """Compressed once at most; then a MIME message, or one part."""
    if data.startswith(GZIP):
        try:
            plain = _unpacked(data, look)
        except ValueError as error:
            yield _ignored(f"it begins as gzip and {error}")
            return
        if plain is None:
            return
        if cleaned(plain) != plain:
            detail = "what is compressed begins with a byte order mark: cloud-init ignores it; take the mark away"
            yield Notice(code=UNKNOWN, detail=detail)
            return
        if plain.startswith(GZIP):
            yield Notice(code=UNKNOWN, detail="it is compressed twice: cloud-init unpacks it once, and ignores it")
            return
        data = plain
    if MIME in data[:MIME_WITHIN].lower():
        yield from _parts(data, look)
    else:
        yield from _content(data, _kind(data), look)


def _ignored(why: str) -> Notice:
    return Notice(code=MALFORMED, detail=f"{why}: cloud-init ignores it")


def _stops(why: str) -> Notice:
    """Of what cloud-init fails at before it comes to vendor-data."""
    detail = f"cloud-init stops at its user-data, so the guest cannot say that it is ready: {why}"
    return Notice(code=SILENT, detail=detail)


def _unpacked(data: bytes, look: _Look) -> bytes | None:
    """What is compressed; None where it is too much to judge. Raises ValueError, with what is wrong with it."""
    most = max(look.left, 0)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            plain = packed.read(most + 1)
    except EOFError:
        raise ValueError("ends too early") from None
    except (OSError, zlib.error):
        raise ValueError("cannot be unpacked: it is broken, or something else stands behind its end") from None
    return plain if len(plain) <= most and look.takes(len(plain)) else None


def _parts(data: bytes, look: _Look) -> Iterator[Notice]:
    """Of a MIME message, which cloud-init reads as text."""
    try:
        message = email.message_from_string(data.decode())
    except UnicodeDecodeError as error:
        yield _stops(f"it is a MIME message and not UTF-8 at byte {error.start}")
        return
    parts = [part for part in message.walk() if part.get_content_maintype() != "multipart"]
    if not parts:
        yield _ignored("it is a MIME message without parts")
        return
    kinds = []
    for part in parts:
        kinds.append(found := _part(part, look))
        if isinstance(found, Notice):
            yield found
    of_kind = [found for found in kinds if not isinstance(found, Notice)]
    look.open = any(kind in OPEN for _, kind in of_kind)
    for content, kind in of_kind:
        yield from _content(content, kind, look)


def _part(part: email.message.Message, look: _Look) -> tuple[bytes, str | None] | Notice:
    """What a part holds and what it is taken for; None for nothing to judge."""
    if part.is_multipart():
        return _stops("a part of it is a message of its own")
    payload, said = part.get_payload(decode=True), part.get_payload()
    content = payload if isinstance(payload, bytes) else b""
    kind: str | None = part.get_content_type()
    encoding = str(part.get("content-transfer-encoding", "")).strip().lower()
    if isinstance(said, str) and not said.isascii() and encoding not in ENCODED:
        return _ignored(
            "a part of it has characters beyond ASCII, which are read as others; write that part in base64 "
            "(Content-Transfer-Encoding: base64). As it is"
        )
    if kind in PACKED:
        try:
            plain = _unpacked(content, look)
        except ValueError as error:
            return _stops(f"a part of it is to be compressed, and {error}")
        content, kind = plain or b"", "text/plain"
    if kind in PLAIN:
        kind = _kind(content) or kind
    return content, kind if content.strip() else None


def _kind(data: bytes) -> str | None:
    start = data[:4096].decode(errors="replace").lstrip().lower()
    return next((kind for word, kind in STARTS.items() if start.startswith(word)), None)


def _content(data: bytes, kind: str | None, look: _Look) -> Iterator[Notice]:
    """Of one part; without a kind, of all of it."""
    match kind:
        case "text/cloud-config":
            yield from _config(data, look)
        case "text/cloud-config-archive":
            yield from _archive(data, look)
        case "text/cloud-config-jsonp":
            yield from _patch(data)
        case "text/jinja2":
            yield from _template(data, look)
        case "text/x-include-url" | "text/x-include-once-url":
            return
        case str() if kind in STARTS.values() or kind in SAID:
            yield from _text(data)
        case _ if not data.strip() or look.open:
            return
        case None | "text/plain" | "text/x-not-multipart":
            detail = f"cloud-init ignores it: it begins with none of {', '.join(sorted(STARTS))}, gzip or MIME-Version:"
            yield Notice(code=UNKNOWN, detail=detail)
        case _:
            detail = "cloud-init ignores a part of it, whose type it does not know: see Content-Type, or type"
            yield Notice(code=UNKNOWN, detail=detail)


def _text(data: bytes) -> Iterator[Notice]:
    """Of a script: it is written to a file as text, or not at all."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        yield _ignored(f"it is a script and not UTF-8 at byte {error.start}")


def _template(data: bytes, look: _Look) -> Iterator[Notice]:
    """Of what is filled in by the guest: what it is, where that is not filled in too; all, where nothing is."""
    rest = data.lstrip().partition(b"\n")[2]
    kind = _kind(rest)
    if kind not in TEMPLATES and not rest.lstrip().startswith(b"{"):
        detail = f"cloud-init ignores it: what follows {TEMPLATE} is neither a script nor begins with {CONFIG}"
        yield Notice(code=UNKNOWN, detail=detail)
    elif not any(mark in rest for mark in (b"{{", b"{%", b"{#")):
        yield from _content(rest, kind, look)


def _patch(data: bytes) -> Iterator[Notice]:
    try:
        said = json.loads(data.decode().lstrip().removeprefix(PATCH))
    except ValueError:
        yield _ignored(f"it begins with {PATCH} and is no JSON")
        return
    one_by_one = isinstance(said, list) and all(
        isinstance(each, dict) and {"op", "path"} <= each.keys() for each in said
    )
    if not one_by_one and said != {}:
        yield _ignored(f"it begins with {PATCH} and is no list of operations")


def _config(data: bytes, look: _Look) -> Iterator[Notice]:
    loaded = _yaml(data, look)
    if isinstance(loaded, Notice):
        yield loaded
    elif loaded is not None and not isinstance(loaded, dict):
        yield _ignored(f"it begins with {CONFIG} and is no mapping of names")
    elif isinstance(loaded, dict) and _silences(loaded):
        detail = "its user-data turns vendor-data off, by which a guest says that it is ready: wait for running instead"
        yield Notice(code=SILENT, detail=detail)


def _archive(data: bytes, look: _Look) -> Iterator[Notice]:
    loaded = _yaml(data, look)
    if isinstance(loaded, Notice):
        yield loaded
        return
    if loaded is None:
        return
    if not isinstance(loaded, list):
        yield _ignored(f"it begins with {ARCHIVE} and is no list of parts")
        return
    entries = []
    for number, entry in enumerate(loaded, 1):
        part = {"content": entry} if isinstance(entry, str) else entry
        if not isinstance(part, dict):
            yield _ignored(f"part {number} of its archive is neither text nor a mapping")
        elif not _is_part(part):
            yield _stops(f"part {number} of its archive is no part: content and what is said of it have to be text")
        else:
            content = str(part.get("content", "")).encode(errors="replace")
            entries.append((content, str(part.get("type") or _kind(content) or STARTS[CONFIG])))
    look.open = look.open or any(kind == STARTS["#part-handler"] for _, kind in entries)
    for content, kind in entries:
        if kind in (STARTS["#include"], SAID[0], STARTS[ARCHIVE], *PLAIN[:2]):
            detail = f"cloud-init ignores a part of its archive: of the type {kind} none may stand in one"
            yield Notice(code=UNKNOWN, detail=detail)
        else:
            yield from _content(content, kind, look)


def _is_part(part: dict[object, object]) -> bool:
    """Whether cloud-init can make a part of a message of it."""
    kind = part.get("type") or "text/cloud-config"
    headers = [value for key, value in part.items() if key not in ENTRY]
    named = all(isinstance(key, str) for key in part)
    return (
        named
        and isinstance(kind, str)
        and "/" in kind
        and isinstance(part.get("content", ""), str)
        and all(isinstance(value, str) for value in headers)
    )


def _yaml(data: bytes, look: _Look) -> object:
    """What the YAML says, None where it is too much to judge, or a notice where it says nothing."""
    if not look.takes(len(data)):
        return None
    try:
        return load(data.decode())
    except TooMuch:
        return None
    except UnicodeDecodeError as error:
        return Notice(code=MALFORMED, detail=f"it is not UTF-8 at byte {error.start}: cloud-init cannot read it")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        return Notice(code=MALFORMED, detail=f"it is not YAML{where}: cloud-init ignores all of it")
    except Exception:  # a library's, of many kinds: a tag whose value it cannot make, a number too long, too deep
        return Notice(code=MALFORMED, detail="it is not YAML: cloud-init ignores all of it")


def _silences(config: dict[object, object]) -> bool:
    """Whether it turns off vendor-data, or boothooks in it, as cloud-init reads it."""
    if "vendor_data" not in config:
        return False
    vendor = config["vendor_data"]
    if not isinstance(vendor, dict):
        return True
    disabled = vendor.get("disabled_handlers")
    if isinstance(disabled, list | str) and STARTS["#cloud-boothook"] in disabled:
        return True
    enabled = vendor.get("enabled", True)
    return enabled is not True and str(enabled).strip().lower() not in ("true", "1", "on", "yes")
