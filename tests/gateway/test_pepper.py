"""Tokens of the log, and the key of their digests."""

import stat
from pathlib import Path

import pytest

from gateway.access.pepper import BadPepper, Pepper, load
from runtime.token_text import random, split


def test_a_token_fits_its_own_digest_only(tmp_path: Path) -> None:
    pepper = load(tmp_path / "pepper.key")
    one, other = pepper.mint("op", None), pepper.mint("op2", None)
    assert split(one.text) == (one.id, one.secret)
    assert one.id != other.id
    assert pepper.mint("op", None).secret != one.secret, "without a key of the caller it is random"
    assert pepper.fits(one.id, one.secret, one.digest)
    assert not pepper.fits(one.id, other.secret, one.digest)
    assert not pepper.fits(other.id, one.secret, one.digest), "not under another id"
    assert not load(tmp_path / "other.key").fits(one.id, one.secret, one.digest)
    assert one.secret not in repr(one) + repr(pepper)


def test_a_repeat_makes_the_same_token(tmp_path: Path) -> None:
    pepper = load(tmp_path / "pepper.key")
    first = pepper.mint("op", "k")
    assert first == load(tmp_path / "pepper.key").mint("op", "k"), "with another gateway too"
    made = {
        pepper.mint(operation, key).text for operation, key in (("op", "k"), ("op", "l"), ("o", "pk"), ("op2", "k"))
    }
    assert len(made) == 4


def test_the_file_is_made_once_and_private(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "pepper.key"
    pepper = load(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    minted = pepper.mint("op", None)
    assert load(file).fits(minted.id, minted.secret, minted.digest)
    file.write_bytes(b"A" * 43 + b"=\n" + file.read_bytes())
    rotated = load(file)
    assert rotated.fits(minted.id, minted.secret, minted.digest), "an older key still verifies"
    derived = pepper.mint("op", "k")
    assert rotated.mint("op", "k").id == derived.id, "a repeat is still the same command"
    assert rotated.mint("op", "k").secret != derived.secret


@pytest.mark.parametrize("content", ["", "x", "QUJD", "%%%", "é"])
def test_a_file_that_is_none_ends_the_start(tmp_path: Path, content: str) -> None:
    file = tmp_path / "pepper.key"
    file.write_text(content)
    with pytest.raises(BadPepper, match="32 bytes"):
        load(file)


@pytest.mark.parametrize(
    "change",
    [str.upper, lambda text: text[:-1], lambda text: text + "a", lambda text: f" {text}", lambda text: text[4:]],
)
def test_what_is_no_token(change: object) -> None:
    token = random()
    assert split(token) is not None
    assert callable(change) and split(change(token)) is None


def test_tokens_do_not_repeat() -> None:
    assert len({random() for _ in range(100)}) == 100


def test_a_pepper_shows_nothing() -> None:
    assert "secret" not in repr(Pepper([b"secret" * 6]))
