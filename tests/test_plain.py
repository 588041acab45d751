"""Text of others cannot act on the terminal or the log that it is shown in."""

import json
import logging
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runtime import logs
from runtime.plain import plain, plain_json
from tests.test_logs import restored

__all__ = ["restored"]

HOSTILE = "\x1b]0;owned\x07\x9b31m\r\u202ecod.exe\u2066\u200b\ufeff\x7f\U000e0041\ud800"


def test_what_is_escaped_and_what_stays() -> None:
    assert plain(HOSTILE) == r"\x1b]0;owned\x07\x9b31m\r\u202ecod.exe\u2066\u200b\ufeff\x7f\U000e0041\ud800"
    assert plain("two\nlines\t.") == "two\nlines\t."
    assert plain("two\nlines\t.", keep="") == r"two\nlines\t."
    for text in ("José 😀", "日本語", "\u0645\u06cc\u200c\u062e", "👩\u200d🚀", "a\u00a0b", ""):
        assert plain(text) == text


@given(st.text())
@example("\x7f")
def test_nothing_hidden_is_left_and_json_says_the_same(text: str) -> None:
    shown = plain(text, keep="").replace("\u200c", "").replace("\u200d", "")
    assert all(unicodedata.category(char) in {"Zs"} or char.isprintable() for char in shown)
    document = plain_json(json.dumps({"name": text}, ensure_ascii=False))
    assert json.loads(document) == {"name": text}
    assert not any(char in document for char in "\x1b\x9b\u202e\u2066\u200b\x7f")


@pytest.mark.parametrize("fmt", ["text", "json"])
def test_a_logged_value_stays_on_its_line(restored: None, capsys: pytest.CaptureFixture[str], fmt: str) -> None:
    logs.configure("tests", "info", fmt)
    logs.get("ours").info("refused", name=f"web\n2026-01-01 forged line {HOSTILE}")
    logging.getLogger("theirs").warning("refused %s", f"web\n2026-01-01 forged {HOSTILE}")
    written = capsys.readouterr().err
    assert written.count("\n") == 2
    assert not any(char in written for char in "\r\x9b\u202e")
