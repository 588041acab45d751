"""Structured logs on standard error: constant event text plus fields; ids bound at the message boundary."""

import logging
import sys
from typing import TextIO, cast

import structlog

Logger = structlog.stdlib.BoundLogger


class _StandardError:
    """Whatever `sys.stderr` is at the time: loggers outlive a stream that was replaced, as test runners do."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure(role: str, level: str, fmt: str) -> None:
    """Set up logging for one process. Libraries speak from WARNING up."""
    render: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if fmt == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    number = getattr(logging, level.upper())
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, render] if fmt == "json" else [*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(file=cast(TextIO, _StandardError())),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    structlog.contextvars.bind_contextvars(role=role)


def get(name: str) -> Logger:
    logger: Logger = structlog.get_logger(component=name)
    return logger
