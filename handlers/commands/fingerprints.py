"""Fingerprints of requests. They show whether a repeat is the same request, and reveal nothing of its content.

A caller sends a digest of its request. The request may contain secrets, and a reader of the log could compare the
digest with that of a guess. So the log gets an HMAC of the digest and of the operation's id, with a key of the vault:
`hmac-`, eight digits that identify the key, and the HMAC. Earlier versions stored the caller's digest itself, which is
still compared.

The same is done with the caller's credential, of which handlers get the beginning of its token's digest: a token that
people chose could be guessed from that.

If a stored fingerprint was made with a key that is lost (the vault is not part of an archive), a repeat cannot be
compared. It counts as the same request, and is answered from the operation's record; nothing is done in either case.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from domain.base import Command, Event
from eventstore.log.macs import tagger
from eventstore.vault.vault import Erased, Vault, WrongMasterKey

#: The names of the keys in the vault. The first one that can be decrypted is used; the next one is created only if the
#: master key of the one before was lost.
NAMES = tuple(f"requests-{number}" for number in range(1, 10))
_STORED = re.compile(r"hmac-([0-9a-f]{8})-[0-9a-f]{32}")

S = TypeVar("S")
C = TypeVar("C", bound=Command)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Identifies the content of a request. `sent`: the caller's digest; `stored`: the form for events."""

    operation: str
    sent: str
    stored: str

    def matches(self, known: str) -> bool:
        """Whether a fingerprint in the log may belong to the same request."""
        made = _STORED.fullmatch(known)
        if made is None:
            return known == self.sent
        mine = _STORED.fullmatch(self.stored)
        return known == self.stored or mine is None or made[1] != mine[1]

    def deciding(self, decide: Callable[[S | None, C], Sequence[Event]]) -> Callable[[S | None, C], Sequence[Event]]:
        """`decide` for a command whose fingerprint is first replaced by the matching one in the state, if there is one.

        So the rules can compare fingerprints by equality.
        """

        def by_log(state: S | None, command: C) -> Sequence[Event]:
            known = self._known(state)
            if known is not None and known != self.stored and self.matches(known):
                command = command.model_copy(update={"fingerprint": known})
            return decide(state, command)

        return by_log

    def _known(self, state: Any) -> str | None:
        """The fingerprint of this operation in a state: of an accepted one, or of a deletion that has begun."""
        if state is None:
            return None
        closing = getattr(state, "closing", None)
        if closing is not None and closing.operation == self.operation:
            return str(closing.fingerprint)
        known = state.operations.get(self.operation)
        return known.fingerprint if known is not None else None


class Fingerprints:
    """Makes fingerprints. All handlers that use the same vault make the same ones."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._tag: Callable[[str], str] | None = None
        self._key_id = ""
        self._credentials_key = b""
        self._credential = lru_cache(maxsize=1024)(self._make)

    async def of(self, operation: str | None, sent: str | None) -> Fingerprint | None:
        """The fingerprint of a request; None if it is no operation. Raises VaultUnavailable."""
        if operation is None or sent is None:
            return None
        tag = self._tag or await self._read()
        made = tag(f"{operation}\0{sent}")
        return Fingerprint(operation, sent, f"hmac-{self._key_id}-{made}")

    async def of_credential(self, credential: str | None) -> str | None:
        """The form of a credential for events: the same for the same credential. Raises VaultUnavailable."""
        if credential is None:
            return None
        if self._tag is None:
            await self._read()
        return self._credential(credential)

    def _make(self, credential: str) -> str:
        made = hmac.digest(self._credentials_key, credential.encode(), hashlib.sha256).hex()
        return f"hmac-{self._key_id}-{made[:32]}"

    async def _read(self) -> Callable[[str], str]:
        for name in NAMES:
            try:
                key = await self._vault.mac_key(name)
            except (Erased, WrongMasterKey):
                continue
            self._key_id = key_id(key)
            self._credentials_key = hmac.digest(key, b"credential", hashlib.sha256)
            self._tag = tagger(key, b"")
            return self._tag
        raise WrongMasterKey("the master key decrypts none of the keys for fingerprints of requests")


def key_id(key: bytes) -> str:
    return hmac.digest(key, b"id", hashlib.sha256).hex()[:8]
