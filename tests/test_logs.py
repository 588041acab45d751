"""Logging: one form, no secrets, and it outlives the stream it began on."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from pydantic import ValidationError

from domain.base import Sealed
from runtime import logs
from runtime.text.masking import masked

SECRET = "hunter2-correct-horse"


@pytest.fixture
def restored() -> Iterator[None]:
    """Logging as it was before, once the test is over."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.contextvars.unbind_contextvars("role")
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


def fail(password: str) -> None:
    """Fails with a secret among its local variables."""
    headers = {"authorization": f"Bearer {password}"}
    raise ValueError(f"cannot use {sorted(headers)}")


@pytest.mark.parametrize("fmt", ["text", "json"])
def test_a_traceback_shows_no_local_variables(restored: None, capsys: pytest.CaptureFixture[str], fmt: str) -> None:
    logs.configure("tests", "info", fmt)
    for speak in (logs.get("ours").exception, logging.getLogger("theirs").exception):
        try:
            fail(SECRET)
        except ValueError:
            speak("it failed")
    text = capsys.readouterr().err
    assert text.count("ValueError: cannot use") == 2 and "in fail" in text
    assert SECRET not in text


@pytest.mark.parametrize("fmt", ["text", "json"])
def test_an_invalid_value_is_not_quoted(restored: None, capsys: pytest.CaptureFixture[str], fmt: str) -> None:
    logs.configure("tests", "info", fmt)
    try:
        Sealed.model_validate({"key": 1, "nonce": SECRET, "ciphertext": [SECRET], "size": SECRET})
    except ValidationError as error:
        logs.get("ours").exception("it failed", error=str(error))
    text = capsys.readouterr().err
    assert "ciphertext" in text
    assert SECRET not in text


def test_libraries_speak_in_our_form_and_from_warning_up(restored: None, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("tests", "debug", "json")
    theirs = logging.getLogger("theirs.client")
    theirs.info("a line a message")
    theirs.warning("careful with %s", "that")
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["event"], said["level"], said["component"]) == ("careful with that", "warning", "theirs.client")
    assert said["role"] == "tests" and said["timestamp"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"nats://admin:{SECRET}@host:4222", "nats://***@host:4222"),
        (f"postgresql://u:{SECRET}@h/db and https://{SECRET}@h/x", "postgresql://***@h/db and https://***@h/x"),
        (f"Authorization: Bearer {SECRET}", "Authorization: Bearer ***"),
        (f"host=h password={SECRET} user=u", "host=h password=*** user=u"),
        (f"host=h password = '{SECRET} and more' user=u", "host=h password = *** user=u"),
        (f"nats://u:a@{SECRET}@h:1,nats://h:2/", "nats://***@h:1,nats://h:2/"),
        ("http://host/path@2x.png mail@example.org", "http://host/path@2x.png mail@example.org"),
        (f"GET https://h/i?X-Amz-Signature={SECRET}&v=1 failed", "GET https://h/i?X-Amz-Signature=***&v=*** failed"),
        (f"HTTP://me:{SECRET}@h/i?{SECRET}: 403", "http://***@h/i?*** 403"),
        (f"NEBULA_NATS_PASSWORD={SECRET} and sslpassword={SECRET}", "NEBULA_NATS_PASSWORD=*** and sslpassword=***"),
        (f"ALTER ROLE r LOGIN PASSWORD '{SECRET} it''s'", "ALTER ROLE r LOGIN PASSWORD ***"),
        (f"{{'user': 'u', 'password': '{SECRET}'}}", "{'user': 'u', 'password': ***}"),
        ("password authentication failed for user x", "password authentication failed for user x"),
    ],
)
def test_credentials_are_masked(restored: None, capsys: pytest.CaptureFixture[str], text: str, shown: str) -> None:
    assert masked(text) == shown
    logs.configure("tests", "info", "json")
    logs.get("ours").warning("said", error=text)
    logging.getLogger("theirs").warning(text)
    assert capsys.readouterr().err.count(shown) == 2


def test_what_is_masked_in_json_stays_json(restored: None, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("tests", "info", "json")
    said = f'{{"password": "{SECRET}", "url": "http://h/i?sig={SECRET}"}}'
    try:
        raise ValueError(f"Bearer {SECRET}\\")
    except ValueError:
        logs.get("ours").exception("it failed", said=said, deep={"list": [said, Path(f"/?password={SECRET}")]}, n=1)
    line = json.loads(capsys.readouterr().err)
    assert line["said"] == line["deep"]["list"][0] == '{"password": "***", "url": "http://h/i?sig=***"}'
    assert SECRET not in str(line) and "Bearer ***" in line["exception"] and line["n"] == 1


def test_a_logger_outlives_a_replaced_standard_error(monkeypatch: pytest.MonkeyPatch, restored: None) -> None:
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stderr", first)
    logs.configure("tests", "warning", "text")
    log = logs.get(__name__)
    log.warning("said at first")
    monkeypatch.setattr("sys.stderr", second)
    first.close()
    log.warning("said later")
    assert "said later" in second.getvalue()
    assert "said at first" not in second.getvalue()
