"""Logging outlives the stream it began on."""

import io

import pytest
import structlog

from runtime import logs


def test_a_logger_outlives_a_replaced_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    before = structlog.get_config()
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stderr", first)
    logs.configure("tests", "warning", "text")
    try:
        log = logs.get(__name__)
        log.warning("said at first")
        monkeypatch.setattr("sys.stderr", second)
        first.close()
        log.warning("said later")
    finally:
        structlog.contextvars.unbind_contextvars("role")
        structlog.configure(**before)
    assert "said later" in second.getvalue()
    assert "said at first" not in second.getvalue()
