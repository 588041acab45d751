"""User-data: how cloud-init will treat it, as far as that is known before the guest boots.

Any bytes are accepted. A byte order mark is removed, because cloud-init does not recognise data that begins with one,
and UTF-16 is converted to UTF-8. The notices say which parts cloud-init would ignore silently. They never quote the
user-data, which is secret.
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

#: Maximum number of bytes that are loaded as YAML or unpacked, for all parts together, as that takes seconds. The rest
#: is not checked.
MOST_LOOKED_AT = 128 * 1024
GZIP = b"\x1f\x8b"
#: What cloud-init looks for at the beginning, after spaces, in upper or lower case; longer ones first.
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
#: Types that are only recognised by a part's header, not by its content.
DECLARED = ("text/x-include-once-url", *(f"text/x-shellscript-per-{when}" for when in ("boot", "instance", "once")))
#: Types that may add further parts or types, which cannot be known here.
OPEN = ("text/part-handler", "text/x-include-url", "text/x-include-once-url")
#: The data is a MIME message for cloud-init if this is in its first bytes.
MIME, MIME_WITHIN = b"mime-version:", 4096
#: Types of parts whose real type follows from their content; types that are unpacked first.
PLAIN = ("text/plain", "text/x-not-multipart", "text/x-shellscript")
_PACKED = "gzip gzip-compressed gzipped x-compress x-compressed x-gunzip x-gzip x-gzip-compressed"
PACKED = tuple(f"application/{kind}" for kind in _PACKED.split())
#: The types that a template may have after it is rendered.
TEMPLATES = ("text/cloud-config", "text/cloud-config-jsonp", "text/x-shellscript")
#: The encodings of a part that need only ASCII characters.
ENCODED = ("base64", "quoted-printable")
#: The keys of an archive's entry that are not headers.
ENTRY = ("content", "filename", "type", "launch-index")

UNKNOWN = "user_data_unknown"
MALFORMED = "user_data_malformed"
SILENT = "guest_cannot_say_ready"


@dataclass
class _Look:
    """One check of user-data. `left`: bytes that may still be read; `open`: whether a part may add further types."""

    left: int = MOST_LOOKED_AT
    open: bool = False

    def takes(self, size: int) -> bool:
        self.left -= size
        return self.left >= 0


def cleaned(data: bytes) -> bytes:
    """The data without a byte order mark; UTF-16 text with such a mark is converted to UTF-8."""
    if data.startswith(codecs.BOM_UTF8):
        return data.removeprefix(codecs.BOM_UTF8)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return data.decode("utf-16").encode()
        except UnicodeError:
            return data
    return data


def notices(data: bytes) -> tuple[Notice, ...]:
    """The notices about cleaned user-data; none if cloud-init will use all of it. It accepts any bytes."""
    try:
        found = list(_all(data, _Look())) if data.strip() else []
    except RecursionError:
        found = [_stops("its parts are nested too deeply")]
    except Exception:  # of a library that cloud-init uses too; not logged, because its text may quote a secret
        found = [_stops("it cannot be split into its parts")]
    return tuple({notice.code: notice for notice in reversed(found)}.values())[::-1]


def _all(data: bytes, look: _Look) -> Iterator[Notice]:
    """Notices about all of it: compressed at most once, then a MIME message or a single part."""
    if data.startswith(GZIP):
        try:
            plain = _unpacked(data, look)
        except ValueError as error:
            yield _ignored(f"it begins as gzip, but {error}")
            return
        if plain is None:
            return
        if cleaned(plain) != plain:
            detail = "its compressed data begins with a byte order mark: cloud-init ignores it; remove the mark"
            yield Notice(code=UNKNOWN, detail=detail)
            return
        if plain.startswith(GZIP):
            detail = "it is compressed twice: cloud-init unpacks it only once, and ignores it; compress it once"
            yield Notice(code=UNKNOWN, detail=detail)
            return
        data = plain
    if MIME in data[:MIME_WITHIN].lower():
        yield from _parts(data, look)
    else:
        yield from _content(data, _kind(data), look)


def _ignored(why: str) -> Notice:
    return Notice(code=MALFORMED, detail=f"{why}: cloud-init ignores it")


def _stops(why: str) -> Notice:
    """The notice about data at which cloud-init fails before it reads vendor-data."""
    detail = f"cloud-init fails on this user-data, so the guest cannot report that it is ready: {why}"
    return Notice(code=SILENT, detail=detail)


def _unpacked(data: bytes, look: _Look) -> bytes | None:
    """The uncompressed data; None if it is too large to check. Raises ValueError with the end of a sentence."""
    most = max(look.left, 0)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            plain = packed.read(most + 1)
    except EOFError:
        raise ValueError("is cut off") from None
    except (OSError, zlib.error):
        raise ValueError("cannot be unpacked: it is broken, or followed by other data") from None
    return plain if len(plain) <= most and look.takes(len(plain)) else None


def _parts(data: bytes, look: _Look) -> Iterator[Notice]:
    """Notices about a MIME message, which cloud-init reads as text."""
    try:
        message = email.message_from_string(data.decode())
    except UnicodeDecodeError as error:
        yield _stops(f"it is a MIME message, but byte {error.start} is not UTF-8")
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
    """The content of a part and its type, or a notice about it. The type is None if there is nothing to check."""
    if part.is_multipart():
        return _stops("a part of it is itself a message")
    payload, raw = part.get_payload(decode=True), part.get_payload()
    content = payload if isinstance(payload, bytes) else b""
    kind: str | None = part.get_content_type()
    encoding = str(part.get("content-transfer-encoding", "")).strip().lower()
    if isinstance(raw, str) and not raw.isascii() and encoding not in ENCODED:
        return _ignored(
            "a part of it has characters beyond ASCII, which would be read as others (encode that part in base64, with "
            "Content-Transfer-Encoding: base64)"
        )
    if kind in PACKED:
        try:
            plain = _unpacked(content, look)
        except ValueError as error:
            return _stops(f"a part of it has a compressed type, but {error}")
        content, kind = plain or b"", "text/plain"
    if kind in PLAIN:
        kind = _kind(content) or kind
    return content, kind if content.strip() else None


def _kind(data: bytes) -> str | None:
    """The type that follows from the beginning of the data."""
    start = data[:4096].decode(errors="replace").lstrip().lower()
    return next((kind for word, kind in STARTS.items() if start.startswith(word)), None)


def _content(data: bytes, kind: str | None, look: _Look) -> Iterator[Notice]:
    """Notices about one part, or about all of the data, if `kind` is None."""
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
        case str() if kind in STARTS.values() or kind in DECLARED:
            yield from _text(data)
        case _ if not data.strip() or look.open:
            return
        case None | "text/plain" | "text/x-not-multipart":
            detail = f"cloud-init ignores it: it begins with none of {', '.join(sorted(STARTS))}, gzip or MIME-Version:"
            yield Notice(code=UNKNOWN, detail=detail)
        case _:
            detail = "cloud-init ignores a part of it, because it does not know the part's Content-Type or type"
            yield Notice(code=UNKNOWN, detail=detail)


def _text(data: bytes) -> Iterator[Notice]:
    """Notices about a script, which cloud-init writes to a file only if it is UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        yield _ignored(f"it is a script, but byte {error.start} is not UTF-8")


def _template(data: bytes, look: _Look) -> Iterator[Notice]:
    """Notices about a template, which the guest renders: only about its type, unless it has no placeholders."""
    rest = data.lstrip().partition(b"\n")[2]
    kind = _kind(rest)
    if kind not in TEMPLATES and not rest.lstrip().startswith(b"{"):
        detail = f"cloud-init ignores it: the text after {TEMPLATE} is not a script and does not begin with {CONFIG}"
        yield Notice(code=UNKNOWN, detail=detail)
    elif not any(mark in rest for mark in (b"{{", b"{%", b"{#")):
        yield from _content(rest, kind, look)


def _patch(data: bytes) -> Iterator[Notice]:
    try:
        patch = json.loads(data.decode().lstrip().removeprefix(PATCH))
    except ValueError:
        yield _ignored(f"it begins with {PATCH}, but is not JSON")
        return
    operations = isinstance(patch, list) and all(
        isinstance(each, dict) and {"op", "path"} <= each.keys() for each in patch
    )
    if not operations and patch != {}:
        yield _ignored(f"it begins with {PATCH}, but is not a list of operations")


def _config(data: bytes, look: _Look) -> Iterator[Notice]:
    loaded = _yaml(data, look)
    if isinstance(loaded, Notice):
        yield loaded
    elif loaded is not None and not isinstance(loaded, dict):
        yield _ignored(f"it begins with {CONFIG}, but is not a mapping")
    elif isinstance(loaded, dict) and _disables_vendor_data(loaded):
        detail = "it turns off vendor-data, with which a guest reports that it is ready; wait for running instead"
        yield Notice(code=SILENT, detail=detail)


def _archive(data: bytes, look: _Look) -> Iterator[Notice]:
    loaded = _yaml(data, look)
    if isinstance(loaded, Notice):
        yield loaded
        return
    if loaded is None:
        return
    if not isinstance(loaded, list):
        yield _ignored(f"it begins with {ARCHIVE}, but is not a list of parts")
        return
    entries = []
    for number, entry in enumerate(loaded, 1):
        part = {"content": entry} if isinstance(entry, str) else entry
        if not isinstance(part, dict):
            yield _ignored(f"part {number} of its archive is neither text nor a mapping")
        elif not _is_part(part):
            yield _stops(f"part {number} of its archive is invalid: its content, type and headers have to be text")
        else:
            content = str(part.get("content", "")).encode(errors="replace")
            entries.append((content, str(part.get("type") or _kind(content) or STARTS[CONFIG])))
    look.open = look.open or any(kind == STARTS["#part-handler"] for _, kind in entries)
    for content, kind in entries:
        if kind in (STARTS["#include"], DECLARED[0], STARTS[ARCHIVE], *PLAIN[:2]):
            detail = f"cloud-init ignores a part of its archive: an archive may not have parts of type {kind}"
            yield Notice(code=UNKNOWN, detail=detail)
        else:
            yield from _content(content, kind, look)


def _is_part(part: dict[object, object]) -> bool:
    """Whether cloud-init can convert the entry of an archive to a part of a message."""
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
    """The loaded YAML; None if it is too large to check; a notice if it is not YAML."""
    if not look.takes(len(data)):
        return None
    try:
        return load(data.decode())
    except TooMuch:
        return None
    except UnicodeDecodeError as error:
        return Notice(code=MALFORMED, detail=f"byte {error.start} is not UTF-8: cloud-init cannot read it")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        return Notice(code=MALFORMED, detail=f"it is not YAML{where}: cloud-init ignores all of it")
    except Exception:  # of the library, of many types: an unknown tag, a very long number, deep nesting
        return Notice(code=MALFORMED, detail="it is not YAML: cloud-init ignores all of it")


def _disables_vendor_data(config: dict[object, object]) -> bool:
    """Whether cloud-init will ignore vendor-data, or the boothooks in it."""
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
