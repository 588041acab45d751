"""The MAC of an event is the HMAC of its digest, as earlier versions stored it."""

import hmac

import pytest
from hypothesis import given, strategies as st

from eventstore.log.macs import Key, tagger
from tests.event_keys import KEY, KEYS, STRANGER

DIGEST = "ab" * 32


@given(st.binary(max_size=64), st.text("0123456789abcdef", min_size=64, max_size=64))
def test_a_tag_is_an_hmac(secret: bytes, digest: str) -> None:
    whole = hmac.digest(secret, b"nebula event 1 " + digest.encode(), "sha256")
    tag = tagger(secret)
    assert [tag(digest), tag(digest)] == [whole[:16].hex()] * 2


def test_a_mac_is_what_earlier_versions_stored() -> None:
    assert KEYS.mac(DIGEST) == "a700a3b3:a488b130997a71fea7891ec3028c81e1"
    assert KEYS.fault(1, DIGEST, "a700a3b3:a488b130997a71fea7891ec3028c81e1") is None


@pytest.mark.parametrize("other", ["ab" * 31 + "ac", "", "ab" * 31])
def test_a_tag_does_not_depend_on_the_one_before(other: str) -> None:
    first = KEY.tag(DIGEST)
    assert KEY.tag(other) != first
    assert KEY.tag(DIGEST) == first != STRANGER.tag(DIGEST)


def test_a_long_key_is_refused() -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        tagger(b"x" * 65)


def test_keys_are_equal_by_what_they_hold() -> None:
    assert Key(KEY.secret) == KEY != Key(KEY.secret, until=1)
    assert "0123456789" not in repr(KEY)
