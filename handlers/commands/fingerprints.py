"""Fingerprints of requests: whether a repeat of an operation asks for the same, without a trace of what was asked.

A caller sends a digest of its request, which may hold secrets. Whoever reads the log could compare such a digest with
that of a guess. So what is stored is an HMAC of it and of the operation's id, with a key of the vault: `hmac-`, eight
digits that tell the key, and the HMAC. Earlier versions stored what the caller had sent: that is still compared.

The same is done with what a caller says of its credential, the beginning of a digest of its token: a token that was
chosen by hand could be guessed from that.

Where a stored fingerprint was made with a key that is lost (the vault is not part of an archive), nobody can tell
whether a repeat is the same. It is answered from the record as if it were: nothing is done in either case.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from domain.base import Command, Event
from eventstore.vault.vault import Erased, Vault, WrongMasterKey

#: The keys' names in the vault. The first one that can be opened counts: the next one is only made where the master key
#: of the one before was lost.
NAMES = tuple(f"requests-{number}" for number in range(1, 10))
_STORED = re.compile(r"hmac-([0-9a-f]{8})-[0-9a-f]{32}")

S = TypeVar("S")
C = TypeVar("C", bound=Command)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a request is told from others by. `sent`: the caller's digest; `stored`: what events may hold of it."""

    operation: str
    sent: str
    stored: str

    def matches(self, known: str) -> bool:
        """Whether a fingerprint that stands in the log may be of the same request."""
        made = _STORED.fullmatch(known)
        if made is None:
            return known == self.sent
        mine = _STORED.fullmatch(self.stored)
        return known == self.stored or mine is None or made[1] != mine[1]

    def deciding(self, decide: Callable[[S | None, C], Sequence[Event]]) -> Callable[[S | None, C], Sequence[Event]]:
        """The rules, by which a repeat of what the state knows has the fingerprint that stands there."""

        def by_log(state: S | None, command: C) -> Sequence[Event]:
            known = self._known(state)
            if known is not None and known != self.stored and self.matches(known):
                command = command.model_copy(update={"fingerprint": known})
            return decide(state, command)

        return by_log

    def _known(self, state: Any) -> str | None:
        """The fingerprint of this operation in a state: of one that was accepted, or of a deletion that has begun."""
        if state is None:
            return None
        closing = getattr(state, "closing", None)
        if closing is not None and closing.operation == self.operation:
            return str(closing.fingerprint)
        known = state.operations.get(self.operation)
        return known.fingerprint if known is not None else None


class Fingerprints:
    """Makes fingerprints. All handlers of a vault make the same ones."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._keyed: hmac.HMAC | None = None
        self._key_id = ""
        self._credentials_key = b""
        self._credential = lru_cache(maxsize=1024)(self._made)

    async def of(self, operation: str | None, sent: str | None) -> Fingerprint | None:
        """The fingerprint of a request; None where it has none. Raises VaultUnavailable."""
        if operation is None or sent is None:
            return None
        made = (self._keyed or await self._read()).copy()
        made.update(f"{operation}\0{sent}".encode())
        return Fingerprint(operation, sent, f"hmac-{self._key_id}-{made.hexdigest()[:32]}")

    async def of_credential(self, said: str | None) -> str | None:
        """What events may hold of a credential: the same for the same one. Raises VaultUnavailable."""
        if said is None:
            return None
        if self._keyed is None:
            await self._read()
        return self._credential(said)

    def _made(self, said: str) -> str:
        made = hmac.digest(self._credentials_key, said.encode(), hashlib.sha256).hex()
        return f"hmac-{self._key_id}-{made[:32]}"

    async def _read(self) -> hmac.HMAC:
        for name in NAMES:
            try:
                key = await self._vault.mac_key(name)
            except (Erased, WrongMasterKey):
                continue
            self._key_id = key_id(key)
            self._credentials_key = hmac.digest(key, b"credential", hashlib.sha256)
            self._keyed = hmac.new(key, digestmod=hashlib.sha256)
            return self._keyed
        raise WrongMasterKey("the master key opens none of the keys that fingerprints of requests are made with")


def key_id(key: bytes) -> str:
    return hmac.digest(key, b"id", hashlib.sha256).hex()[:8]
