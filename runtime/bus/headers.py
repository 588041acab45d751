"""The headers of a NATS message, as the block of our messages, and parsed from bytes that anybody may have written.

Parsing never raises. nats-py's own parser may raise on malformed headers, and then the connection is not read any more.
Names are ASCII tokens. Values are UTF-8 without spaces at both ends; bytes that are not UTF-8 are replaced. If a name
occurs twice, the last value counts. A line that is no header is ignored.
"""

import re
from collections.abc import KeysView, Mapping

NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""A valid name: a token of RFC 9110."""

FIRST_LINE = b"NATS/1.0"

_fit: set[str] = set()
"""Cache of names that are valid tokens; usually a few dozen."""
_MOST_FIT = 1000
_MOST_FORMS = 256
_forms: dict[tuple[str, ...], str] = {}
"""Cache of formats for blocks, by sequence of names."""
_VALUE = ": ([!-~]++)\r\n"
"""A value as the platform writes it: visible ASCII without a space."""
_MOST_USUAL, _MOST_ALIKE, _LONGEST = 64, 8, 1000
_usual_ones: dict[int, list[tuple[tuple[str, ...], re.Pattern[str]]]] = {}
"""By number of line breaks: sequences of names that were seen, each with the expression that matches their values.

Events have few sets of names. Since anybody may send others, only the first few sets are cached, and only short ones.
"""
_VISIBLE = bytes([*range(0x20, 0x7F), 0x0D, 0x0A])
"""Printable ASCII and line ends."""


class Odd(dict[str, str]):
    """Headers that a dictionary cannot represent exactly. `block`: their bytes."""

    def __init__(self, headers: dict[str, str], block: bytes) -> None:
        super().__init__(headers)
        self.block = block


def parsed(block: bytes) -> dict[str, str] | None:
    """The headers of a block, which begins with `NATS/1.0`; None if it has none."""
    first, _, rest = block.partition(b"\r\n")
    if first != FIRST_LINE:
        return _odd(block, rest, _status(first))
    found = _usual(rest)
    if found is None and (found := _plain(rest)):
        _remember(found)
    return found or _odd(block, rest, {})


def header_block(headers: Mapping[str, str]) -> bytes | None:
    """The headers in the format of the NATS protocol; None if nats-py has to encode them, because it may refuse a name
    or change a value."""
    names = tuple(headers)
    form = _forms.get(names)
    if form is None and (form := _form(names)) is None:
        return None
    values = tuple(map(str.strip, headers.values()))
    text = "".join(values)
    if "\r" in text or "\n" in text:
        return None
    return (form % values).encode()


def _form(names: tuple[str, ...]) -> str | None:
    """The block of headers with these names, a format for their values; None if a name is invalid.

    It is cached, since messages have few sets of names.
    """
    if not fit(dict.fromkeys(names).keys()):
        return None
    # Join, do not format: nats-py's own header names are members of an Enum, which format() renders differently.
    form = "\r\n".join(["NATS/1.0", *[name.replace("%", "%%") + ": %s" for name in names], "", ""])
    if len(_forms) >= _MOST_FORMS:
        _forms.clear()
    if len(form) <= _LONGEST:
        _forms[names] = form
    return form


def fit(names: KeysView[str]) -> bool:
    """Whether all these names are valid."""
    if names <= _fit:
        return True
    if not all(NAME.fullmatch(name) for name in names):
        return False
    if len(_fit) < _MOST_FIT:
        _fit.update(names)
    return True


def usual(block: bytes) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Names and values of the headers of a block as `parsed` returns them, for one who needs no dictionary.

    None if `parsed` has not seen this sequence of names yet, or the block is not in the platform's own format.
    """
    first, _, rest = block.partition(b"\r\n")
    return _known(rest) if first == FIRST_LINE else None


def _known(lines: bytes) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The fastest parser, for a known sequence of names: almost all events. None for other headers."""
    try:
        text = lines.decode("ascii")
    except UnicodeDecodeError:
        return None
    for names, values in _usual_ones.get(lines.count(b"\n"), ()):
        if found := values.fullmatch(text):
            return names, found.groups()
    return None


def _usual(lines: bytes) -> dict[str, str] | None:
    found = _known(lines)
    return dict(zip(*found, strict=True)) if found is not None else None


def _remember(headers: Mapping[str, str]) -> None:
    """Add the sequence of names for the fastest parser."""
    names = tuple(headers)
    alike = _usual_ones.get(len(names) + 1, [])
    if sum(map(len, _usual_ones.values())) >= _MOST_USUAL or len(alike) >= _MOST_ALIKE:
        return
    if sum(map(len, names)) <= _LONGEST and names not in [known for known, _ in alike]:
        values = re.compile("".join(re.escape(name) + _VALUE for name in names) + "\r\n")
        _usual_ones[len(names) + 1] = [*alike, (names, values)]


def _plain(lines: bytes) -> dict[str, str] | None:
    """The second fastest parser, for well-formed headers; None for all others."""
    text = lines.decode(errors="replace")
    try:
        pairs = [line.split(": ", 1) for line in text.split("\r\n") if line]
        headers: dict[str, str] = dict(pairs)  # a line without ": " raises here
    except ValueError:
        return None
    spaced = lines.count(b" ") > len(pairs) and b"  " in lines
    if spaced or b" \r" in lines or len(headers) < len(pairs) or not fit(headers.keys()):
        return None
    return headers if _shown(lines, text, len(pairs) + 1) else None


def _shown(lines: bytes, text: str, breaks: int) -> bool:
    """Whether all of it is printable UTF-8 with the expected number of lines."""
    if not lines.translate(None, _VISIBLE):
        return lines.count(b"\r") == lines.count(b"\n") == breaks
    return lines == text.encode() and text.replace("\r\n", "").isprintable()


def _odd(block: bytes, lines: bytes, headers: dict[str, str]) -> dict[str, str] | None:
    for line in lines.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        key = name.strip().decode(errors="replace")
        if colon and NAME.fullmatch(key):
            headers[key] = value.strip().decode(errors="replace")
    return Odd(headers, block) if headers else None


def _status(first: bytes) -> dict[str, str]:
    """The status in the first line of a server's message, such as `NATS/1.0 404 Message Not Found`."""
    status, _, description = first[len(FIRST_LINE) :].strip().partition(b" ")
    found = {"Status": status.decode()} if status.isdigit() else {}
    if description:
        found["Description"] = description.decode(errors="replace")
    return found
