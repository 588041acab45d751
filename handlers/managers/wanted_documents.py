"""The wanted documents of all nodes, as this process last read or wrote them.

One is replaced only at the position that is known here (compare-and-store). Malformed ones are parked.
"""

import asyncio
import zlib
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from sys import intern
from typing import NamedTuple

from domain.contract import Desired, Wanted
from eventstore.documents import Document, Documents
from eventstore.log.store import Conflict
from eventstore.parking.parking import WANTED, Parking
from handlers.managers.wanted import same
from runtime import logs, subjects
from runtime.bus.malformed import reason
from runtime.node_keys import WANTED as LABEL, NodeKeys

log = logs.get(__name__)

#: Maximum number of malformed documents that wait to be parked.
MOST_MALFORMED = 1000
#: Seconds between two reads of all documents: at least so many, and so many for each document. To read one and to
#: compare it with the state of its VM takes less than half a millisecond, so this costs at most 1 % of a processor.
READ_AGAIN, READ_EACH = 300.0, 0.05


class Key(NamedTuple):
    """What a document is about: one resource of a kind on one node."""

    node: str
    kind: str
    id: str


def about(document: Document) -> Key:
    node, kind, id_ = subjects.parse_wanted(document.subject)
    return Key(intern(node), intern(kind), id_)  # many documents have the same node and kind


@dataclass(frozen=True, slots=True)
class Kept:
    """A valid document of the stream, in little memory. `signed`: whether it has the MAC that handlers make now."""

    packed: bytes
    stored_at: datetime
    signed: bool
    tombstone: bool

    @classmethod
    def of(cls, found: Wanted, document: Document, *, signed: bool) -> "Kept":
        is_tombstone = signed and found.desired is Desired.ABSENT
        return cls(zlib.compress(document.body, 1), document.stored_at, signed, is_tombstone)

    @property
    def body(self) -> bytes:
        return zlib.decompress(self.packed)

    @property
    def wanted(self) -> Wanted:
        return Wanted.model_validate_json(self.body)


def is_signed(keys: NodeKeys, document: Document) -> bool:
    """Whether handlers with these keys have written a document for its node."""
    return keys.valid(about(document).node, LABEL, document.subject, document.body, document.mac)


class WantedDocuments:
    """`keys`: sign the documents; None: none is signed. `parking` None: malformed documents are not parked."""

    def __init__(self, documents: Documents, parking: Parking | None = None, keys: NodeKeys | None = None) -> None:
        self._documents = documents
        self._parking = parking
        self._keys = keys
        self.malformed: deque[tuple[Document, str]] = deque(maxlen=MOST_MALFORMED)
        self._writing: dict[Key, bytes] = {}
        self._written: dict[Key, Kept] = {}
        self._keys_of: dict[str, tuple[Key, ...]] = {}
        #: the position of each stored document
        self._stored: dict[Key, int] = {}
        #: while all documents are being read: the keys of those that were written or read meanwhile
        self._touched: set[Key] | None = None
        self._connection = documents.connection
        self._read_at = 0.0

    def get(self, key: Key) -> Wanted | None:
        """The document of a resource on a node. None if there is none, or a malformed one."""
        found = self._written.get(key)
        return found.wanted if found is not None else None

    def stored_at(self, key: Key) -> datetime:
        """When a document that `get` has was stored."""
        return self._written[key].stored_at

    def of(self, id_: str) -> frozenset[Key]:
        """The keys of the documents of one resource."""
        return frozenset(self._keys_of.get(id_, ()))

    def ids(self) -> frozenset[str]:
        """The ids of all resources that have a document."""
        return frozenset(self._keys_of)

    def is_tombstone(self, key: Key) -> bool:
        found = self._written.get(key)
        return found is not None and found.tombstone

    def is_due(self) -> bool:
        """Whether all documents have to be read: the connection is a new one, or the last time is long ago."""
        age = asyncio.get_running_loop().time() - self._read_at
        due = age > max(READ_AGAIN, READ_EACH * len(self._stored))
        return due or self._documents.connection != self._connection

    async def read(self) -> None:
        """Read all documents of the stream. Meanwhile single documents may be written."""
        connection, newer = self._documents.connection, set[Key]()
        self._touched = newer
        try:
            stored = await self._documents.all(subjects.wanted_of())
        finally:
            self._touched = None
        for key in self._stored.keys() - newer:
            self._forget(key)
        for document in stored:
            if about(document) not in newer:
                self.learn(document)
        self._connection = connection
        self._read_at = asyncio.get_running_loop().time()

    def learn(self, document: Document) -> None:
        """Keep a document of the stream. A malformed one is parked, and replaced if there should be one."""
        key = about(document)
        self._forget(key)
        self._stored[key] = document.position
        try:
            found = Wanted.model_validate_json(document.body)
            if Key(found.node, found.kind, found.vm) != key:
                raise ValueError("node, kind or id differ from those in its subject")
        except ValueError as error:
            log.error("malformed wanted document", subject=document.subject, error=reason(error))
            self.malformed.append((document, reason(error)))
        else:
            self._keep(key, found, document)

    async def read_of(self, id_: str, own: Key | None) -> None:
        """Read the documents of one VM from the stream. Some may have been removed by another process. `own`: the key
        that it has now.
        """
        before = {key: self._stored.get(key) for key in {*self._keys_of.get(id_, ()), own} if key is not None}
        stored = await self._documents.all(subjects.wanted("*", "vm", id_))
        for key in before.keys() - {about(document) for document in stored}:
            if self._stored.get(key) == before[key]:
                self._forget(key)
        for document in stored:
            self.learn(document)

    def notice(self, document: Document) -> bool:
        """Take a document of the stream, whoever wrote it. Returns whether it is new here."""
        key = about(document)
        known = self._written.get(key)
        mine = document.body in (self._writing.get(key), known.body if known is not None else None)
        signed = self._is_signed(document)
        if document.position <= self._stored.get(key, 0) or (mine and signed):
            return False
        if not signed:
            log.warning("a wanted document that handlers did not sign is replaced", subject=document.subject)
        self.learn(document)
        return True

    async def put(self, fresh: Wanted) -> None:
        """Replace the document, unless it is the same. Raises Conflict if another process replaced it."""
        key = Key(fresh.node, "vm", fresh.vm)
        before = self._written.get(key)
        if before is not None and before.signed and same(before.wanted, fresh):
            return
        subject = subjects.wanted(*key)
        body = fresh.model_dump_json().encode()
        self._writing[key] = body
        try:
            mac = self._keys.mac(key.node, LABEL, subject, body) if self._keys is not None else None
            position = await self._documents.put(subject, body, last=self._stored.get(key, 0), mac=mac)
            if self._stored.get(key, 0) > position:  # a newer one came with the stream before the reply
                raise Conflict(subject)
            self._keep(key, fresh, Document(subject, position, body, datetime.now(UTC), mac))
        finally:
            del self._writing[key]
        log.info("wanted written", vm=fresh.vm, node=fresh.node, desired=fresh.desired, generation=fresh.generation)

    async def drop(self, key: Key) -> None:
        """Remove a document from the stream. Raises Unavailable."""
        await self._documents.drop(subjects.wanted(*key))
        self._forget(key)

    async def park_malformed(self) -> None:
        """Park the malformed documents. Raises Unavailable; those that are not parked yet stay."""
        while self._parking is not None and self.malformed:
            document, error = self.malformed[0]
            await self._parking.park(
                WANTED,
                str(document.position),
                subject=document.subject,
                position=document.position,
                error=error,
                size=len(document.body),
            )
            self.malformed.popleft()

    def _is_signed(self, document: Document) -> bool:
        """Whether a document has the MAC that handlers make for its node now; always without keys."""
        if self._keys is None:
            return True
        node = about(document).node
        return self._keys.is_current(node, LABEL, document.subject, document.body, document.mac)

    def _keep(self, key: Key, found: Wanted, document: Document) -> None:
        self._touch(key)
        self._written[key] = Kept.of(found, document, signed=self._is_signed(document))
        self._stored[key] = document.position
        others = self._keys_of.get(key.id, ())
        if key not in others:
            self._keys_of[key.id] = (*others, key)

    def _forget(self, key: Key) -> None:
        self._touch(key)
        self._written.pop(key, None)
        self._stored.pop(key, None)
        others = tuple(other for other in self._keys_of.pop(key.id, ()) if other != key)
        if others:
            self._keys_of[key.id] = others

    def _touch(self, key: Key) -> None:
        if self._touched is not None:
            self._touched.add(key)
