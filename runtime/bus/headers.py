"""The headers of a NATS message, read from bytes that anybody may have written.

Reading never fails: nats-py's own reading may raise on what a publisher sent, and that ends the connection's reading
for good. Names are ASCII tokens; values are UTF-8 without space at either end, with what is no UTF-8 replaced; of a
name that comes twice the last value counts. A line that is no header is left out.
"""

import re
from collections.abc import KeysView, Mapping

NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""RFC 9110's token: what a name may be."""

FIRST_LINE = b"NATS/1.0"

_fit: set[str] = set()
"""Names that were found to be tokens: there are a few dozen in all."""
_MOST_FIT = 1000
_VALUE = ": ([!-~]++)\r\n"
"""A value as we write them: visible ASCII without a space."""
_MOST_USUAL, _MOST_ALIKE, _LONGEST = 64, 8, 1000
_usual_ones: dict[int, list[tuple[tuple[str, ...], re.Pattern[str]]]] = {}
"""By number of line breaks: names that came together in this order, and the expression that reads their values.

Events have few sets of names. Anybody may write others, so only the first few sets are kept, and only short ones.
"""
_VISIBLE = bytes([*range(0x20, 0x7F), 0x0D, 0x0A])
"""ASCII that can be shown, and what ends lines."""


class Odd(dict[str, str]):
    """Headers that a dictionary does not tell whole. `block` has them byte by byte."""

    def __init__(self, headers: dict[str, str], block: bytes) -> None:
        super().__init__(headers)
        self.block = block


def parsed(block: bytes) -> dict[str, str] | None:
    """The headers of a block (`NATS/1.0` and what follows); None where there are none."""
    first, _, rest = block.partition(b"\r\n")
    if first != FIRST_LINE:
        return _odd(block, rest, _status(first))
    found = _usual(rest)
    if found is None and (found := _plain(rest)):
        _remember(found)
    return found or _odd(block, rest, {})


def fit(names: KeysView[str]) -> bool:
    """Whether each of these is fit to be the name of a header."""
    if names <= _fit:
        return True
    if not all(NAME.fullmatch(name) for name in names):
        return False
    if len(_fit) < _MOST_FIT:
        _fit.update(names)
    return True


def _usual(lines: bytes) -> dict[str, str] | None:
    """The quickest way, for nearly every event: the same names came before. None for all others."""
    try:
        text = lines.decode("ascii")
    except UnicodeDecodeError:
        return None
    for names, values in _usual_ones.get(lines.count(b"\n"), ()):
        if found := values.fullmatch(text):
            return dict(zip(names, found.groups(), strict=True))
    return None


def _remember(headers: Mapping[str, str]) -> None:
    """Read the next headers with these names the quickest way."""
    names = tuple(headers)
    alike = _usual_ones.get(len(names) + 1, [])
    if sum(map(len, _usual_ones.values())) >= _MOST_USUAL or len(alike) >= _MOST_ALIKE:
        return
    if sum(map(len, names)) <= _LONGEST and names not in [known for known, _ in alike]:
        values = re.compile("".join(re.escape(name) + _VALUE for name in names) + "\r\n")
        _usual_ones[len(names) + 1] = [*alike, (names, values)]


def _plain(lines: bytes) -> dict[str, str] | None:
    """The next quickest, for headers as they should be; None for all others."""
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
    """Whether all of it is UTF-8 that can be shown, on as many lines as there should be."""
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
    """What a server says in the first line, such as `NATS/1.0 404 Message Not Found`."""
    status, _, description = first[len(FIRST_LINE) :].strip().partition(b" ")
    found = {"Status": status.decode()} if status.isdigit() else {}
    if description:
        found["Description"] = description.decode(errors="replace")
    return found
