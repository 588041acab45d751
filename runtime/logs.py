"""Structured logs on standard error: a constant text plus fields. Ids are bound where a message is received.

Libraries that use `logging` are logged in the same format. A traceback has files, lines and the error, but never the
values of variables. Credentials in URLs, passwords and bearer tokens are masked everywhere in a line.
"""

import io
import logging
import sys
import textwrap
from collections.abc import MutableMapping
from typing import Any, TextIO, cast

import structlog

from runtime.text.masking import masked
from runtime.text.plain import plain

Logger = structlog.stdlib.BoundLogger


class _StandardError:
    """Writes to the current `sys.stderr`, which test runners replace while loggers exist.

    A line that cannot be written (full disk, closed pipe) is lost, without an error for the caller. The next line that
    is written has the number of lost lines.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._failed = False

    def write(self, text: str) -> int:
        try:
            return sys.stderr.write(text)
        except OSError:
            self._failed = True
            return len(text)

    def flush(self) -> None:
        """Called at the end of a line."""
        try:
            sys.stderr.flush()
        except OSError:
            self._failed = True
        self.lost = self.lost + 1 if self._failed else 0
        self._failed = False


class _Renderer:
    """The last processor: makes a line of text, and masks it. For JSON each value is masked, so that it stays JSON."""

    def __init__(self, fmt: str, output: _StandardError) -> None:
        self._output = output
        self._json = fmt == "json"
        self._render: structlog.typing.Processor = (
            structlog.processors.JSONRenderer()
            if fmt == "json"
            else structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                pad_event_to=0,
                exception_formatter=_traceback,
            )
        )

    def __call__(self, logger: Any, name: str, event: MutableMapping[str, Any]) -> str:
        if self._output.lost:
            event["lines_lost"] = self._output.lost
        if self._json:
            return str(self._render(logger, name, {key: _masked(value) for key, value in event.items()}))
        return masked(str(self._render(logger, name, event)))


def configure(role: str, level: str, fmt: str) -> None:
    """Set up logging for one process. Libraries log from WARNING up. `fmt`: text or json."""
    output = _StandardError()
    render = _Renderer(fmt, output)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _plain,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.typing.Processor] = [
        *([structlog.processors.format_exc_info] if fmt == "json" else []),
        render,
    ]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, output)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(cast(TextIO, output))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(allow=[]), _component],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    for other in list(root.handlers):
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    structlog.contextvars.bind_contextvars(role=role)


def _masked(value: object) -> object:
    match value:
        case None | bool() | int() | float():
            return value
        case dict():
            return {str(key): _masked(each) for key, each in value.items()}
        case list() | tuple():
            return [_masked(each) for each in value]
        case _:
            return masked(str(value))


def _plain(logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape line ends and terminal control characters in fields, since their text may come from outside."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = plain(value, keep="")
    return event


def _traceback(output: TextIO, error: structlog.typing.ExcInfo) -> None:
    """Write a traceback, indented, so that text in an error cannot look like a log line.

    (structlog's default is rich's traceback, which prints all local variables.)
    """
    whole = io.StringIO()
    structlog.dev.plain_traceback(whole, error)
    output.write(textwrap.indent(plain(whole.getvalue()), "  "))


def _component(logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the name of the library that logs."""
    record = event.get("_record")
    if record is not None:
        event["component"] = record.name
    return event


def get(name: str) -> Logger:
    logger: Logger = structlog.get_logger(component=name)
    return logger
