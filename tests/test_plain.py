"""Text of others cannot act on the terminal or the log that it is shown in."""

import json
import logging
import unicodedata

import pytest
from hypothesis import example, given, strategies as st

from runtime import logs
from runtime.text.plain import plain, plain_json
from tests.test_logs import restored

__all__ = ["restored"]

HOSTILE = "\x1b]0;owned\x07\x9b31m\r\u202ecod.exe\u2066\u200b\ufeff\x7f\U000e0041\ud800"


def test_what_is_escaped_and_what_stays() -> None:
    assert plain(HOSTILE) == r"\x1b]0;owned\x07\x9b31m\r\u202ecod.exe\u2066\u200b\ufeff\x7f\U000e0041\ud800"
    assert plain("two\nlines\t.") == "two\nlines\t."
    assert plain("two\nlines\t.", keep="") == r"two\nlines\t."
    for text in ("❤\ufe0f\u200d🔥", "葛\U000e0100城", "क्\u200dष"):
        assert plain(text) == text
    for text in ("José 😀", "日本語", "\u0645\u06cc\u200c\u062e", "👩\u200d🚀", "a\u00a0b", ""):
        assert plain(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ad\u200dmin", r"ad\u200dmin"),
        ("\u200cx", r"\u200cx"),
        ("y\ufe0f", r"y\ufe0f"),
        ("é\u200d\u200d", "é\u200d" + r"\u200d"),
        ("😀\U000e0101\U000e0102", "😀\U000e0101" + r"\U000e0102"),
        ("a\u3164\u034f\u115f\uffa0\u180b", r"a\u3164\u034f\u115f\uffa0\u180b"),
    ],
)
def test_what_is_drawn_as_nothing_hides_nothing(text: str, shown: str) -> None:
    assert plain(text) == shown
    assert json.loads(plain_json(json.dumps(text, ensure_ascii=False))) == text
    assert plain_json(text).isascii() == shown.isascii()


@given(st.text())
@example("\x7f")
def test_nothing_hidden_is_left_and_json_says_the_same(text: str) -> None:
    shown = plain(text, keep="").replace("\u200c", "").replace("\u200d", "")
    assert all(unicodedata.category(char) in {"Zs"} or char.isprintable() for char in shown)
    document = plain_json(json.dumps({"name": text}, ensure_ascii=False))
    assert json.loads(document) == {"name": text}
    assert not any(char in document for char in "\x1b\x9b\u202e\u2066\u200b\x7f\u3164\u034f")


@pytest.mark.parametrize("fmt", ["text", "json"])
def test_a_logged_value_stays_on_its_line(restored: None, capsys: pytest.CaptureFixture[str], fmt: str) -> None:
    logs.configure("tests", "info", fmt)
    logs.get("ours").info("refused", name=f"web\n2026-01-01 forged line {HOSTILE}")
    logging.getLogger("theirs").warning("refused %s", f"web\n2026-01-01 forged {HOSTILE}")
    written = capsys.readouterr().err
    assert written.count("\n") == 2
    assert not any(char in written for char in "\r\x9b\u202e")


def fail(guest: str) -> None:
    raise ValueError(guest)


@pytest.mark.parametrize("fmt", ["text", "json"])
def test_the_text_of_an_error_forges_no_line(restored: None, capsys: pytest.CaptureFixture[str], fmt: str) -> None:
    logs.configure("tests", "info", fmt)
    for speak in (logs.get("ours").exception, logging.getLogger("theirs").exception):
        try:
            fail(f"hello\n2026-01-01 forged {HOSTILE}")
        except ValueError:
            speak("it failed")
    written = capsys.readouterr().err
    assert written.count("owned") == 2 and "in fail" in written
    assert not any(char in written for char in "\r\x1b\x07\x9b\u202e\u200b")
    assert not [line for line in written.splitlines() if line.startswith("2026-01-01 forged")]
