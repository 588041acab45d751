"""How answers are printed: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from cli.client.session import Output, Session
from runtime.text.plain import plain, plain_json

Row = Mapping[str, Any]
#: A table's columns: the heading, and the field or function for the cell.
Columns = Mapping[str, str | Callable[[Row], object]]


def emit(text: str) -> None:
    """Print one or more lines of the result. Characters that could harm a terminal are escaped."""
    sys.stdout.write(plain(text) + "\n")
    sys.stdout.flush()


def line(text: str) -> None:
    """Print one line of the result. Line ends in it are escaped."""
    emit(plain(text, keep=""))


def emit_json(value: object, indent: int | None = 2) -> None:
    emit(plain_json(json.dumps(value, indent=indent, ensure_ascii=False)))


def emit_exactly(content: bytes) -> None:
    """Print foreign text: unchanged to a file or a pipe, escaped on a terminal. A line end is added."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = None
    if sys.stdout.isatty():
        emit(repr(content) if text is None else text)
    else:
        sys.stdout.buffer.write(content if text is None else content + b"\n")
        sys.stdout.flush()


def listing(session: Session, rows: Iterable[Row], columns: Columns) -> None:
    """A list: a table, or `{"items": […]}`."""
    items = list(rows)
    if session.output is Output.JSON:
        emit_json({"items": items})
    else:
        emit(table(items, columns))


def one(session: Session, row: Row) -> None:
    """Print all fields of one resource."""
    if session.output is Output.JSON:
        emit_json(row)
        return
    shown = {plain(name, keep=""): value for name, value in row.items() if value not in (None, [], {}, "")}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        for number, text in enumerate(_lines(value)):
            line(f"{name if number == 0 else '':<{width}}  {text}")


def table(rows: Sequence[Row], columns: Columns) -> str:
    """Rows under headings, with two spaces between columns: easy to read, to grep and to cut."""
    cells = [list(columns)]
    for row in rows:
        cells.append([plain(cell(of(row) if callable(of) else row.get(of)), keep="") for of in columns.values()])
    widths = [max(len(each[i]) for each in cells) for i in range(len(columns))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(each, widths, strict=True)).rstrip() for each in cells
    )


def cell(value: object) -> str:
    match value:
        case None | "" | [] | ():
            return "-"
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ",".join(cell(item) for item in value)
        case _:
            return str(value)


def age(field: str) -> Callable[[Row], object]:
    """A column that shows how long ago the time in `field` was."""

    def elapsed(row: Row) -> object:
        at = row.get(field)
        return duration((datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()) if at else None

    return elapsed


def moment(at: str) -> str:
    """A time of the API, to the millisecond."""
    return datetime.fromisoformat(at).astimezone(UTC).isoformat(sep=" ", timespec="milliseconds")[:23] + "Z"


def duration(seconds: float) -> str:
    """Seconds, for people: 0.35 s, 12.3 s, 4 m 10 s, 3 h 5 m, 12 d 4 h."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    whole = round(seconds)
    for name, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // part} {smaller}"
    raise AssertionError("unreachable")


def size(count: int | None) -> str | None:
    """Bytes, for people: 512 B, 12 KiB, 3.8 GiB."""
    if count is None:
        return None
    if count < 1024:
        return f"{count} B"
    value, units = float(count), ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    while (value := value / 1024) >= 1024:
        units.pop(0)
    return f"{value:.1f} {units[0]}" if value < 10 else f"{value:.0f} {units[0]}"


def _lines(value: object) -> list[str]:
    match value:
        case dict():
            return [", ".join(f"{name} {cell(part)}" for name, part in value.items() if part is not None)]
        case list() if value and isinstance(value[0], dict):
            return [each for part in value for each in _lines(part)]
        case list() if any(" " in str(part) for part in value):  # sentences
            return [str(part) for part in value]
        case _:
            return cell(value).split("\n")
