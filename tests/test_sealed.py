"""A secret for one host is opened by that host only."""

import os

import nkeys
import pytest

from runtime.sealed import seal, unseal

SECRET = bytes(range(32))


def pair() -> tuple[str, str]:
    """A seed and its public key."""
    seed: bytes = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    public: bytes = nkeys.from_seed(bytearray(seed)).public_key
    return seed.decode(), public.decode()


def test_only_the_owner_of_the_key_opens_it() -> None:
    (seed, public), (other, _) = pair(), pair()
    sealed = seal(public, SECRET)
    assert unseal(seed, sealed) == SECRET
    assert sealed != seal(public, SECRET), "two of one secret tell nobody that it is one"
    with pytest.raises(ValueError, match="not sealed for this key"):
        unseal(other, sealed)


@pytest.mark.parametrize("broken", ["", "x", "AAAA", "é", "cut", "changed"])
def test_what_is_damaged_is_not_opened(broken: str) -> None:
    seed, public = pair()
    sealed = seal(public, SECRET)
    last = "A" if sealed[60] != "A" else "B"
    broken = {"cut": sealed[:-4], "changed": f"{sealed[:60]}{last}{sealed[61:]}"}.get(broken, broken)
    with pytest.raises(ValueError, match="damaged"):
        unseal(seed, broken)


@pytest.mark.parametrize("public", ["", "U", "U" * 56, "A" * 56, "é" * 56, "UABC!"])
def test_what_is_no_key_gets_nothing(public: str) -> None:
    with pytest.raises(ValueError, match="not an ed25519 public key"):
        seal(public, SECRET)


@pytest.mark.parametrize("seed", ["", "x", "S" * 58, "é"])
def test_what_is_no_seed_opens_nothing(seed: str) -> None:
    with pytest.raises(ValueError, match="damaged"):
        unseal(seed, seal(pair()[1], SECRET))
