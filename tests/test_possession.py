"""Proofs of the possession of a key."""

import base64

import pytest

from node_daemon.membership.credentials import new_seed, public
from runtime.possession import is_proven, proof, text


def test_only_the_owner_of_a_key_proves_it() -> None:
    mine, other, signed = new_seed(), new_seed(), text("n1", "d", "U1", "U2")
    assert is_proven(public(mine), signed, proof(mine, signed))
    assert not is_proven(public(mine), signed, proof(other, signed))
    assert not is_proven(public(other), signed, proof(mine, signed))


@pytest.mark.parametrize(
    "other", [("n2", "d", "U1", "U2"), ("n1", "e", "U1", "U2"), ("n1", "d", "U2", "U1"), ("n1", "d", "U1", None)]
)
def test_a_proof_is_for_one_text(other: tuple[str, str, str, str | None]) -> None:
    mine = new_seed()
    assert not is_proven(public(mine), text(*other), proof(mine, text("n1", "d", "U1", "U2")))


#: Keys of small order, for which anybody can make signatures if they are not refused.
WEAK = (bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f")


@pytest.mark.parametrize("raw", WEAK)
def test_a_weak_key_proves_nothing(raw: bytes) -> None:
    key = base64.b32encode(bytes([160]) + raw + b"xx").decode()
    for signature in (b"\x01" + bytes(63), bytes(64), raw + bytes(32)):
        assert not is_proven(key, b"text", base64.urlsafe_b64encode(signature).decode())


@pytest.mark.parametrize("given", ["", "x", "A" * 86 + "==", "\xe9" * 88, "+/" * 43 + "=="])
def test_nonsense_proves_nothing(given: str) -> None:
    assert not is_proven(public(new_seed()), b"text", given)
    assert not is_proven(given, b"text", proof(new_seed(), b"text"))
