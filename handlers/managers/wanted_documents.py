"""The wanted documents of all nodes, as this process last read or wrote them.

One is replaced only at the position that is known here (compare-and-store). Malformed ones are parked.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from sys import intern
from typing import NamedTuple

from domain.contract import Desired, Wanted
from eventstore.documents import Document, Documents
from eventstore.log.store import Conflict
from eventstore.parking.parking import WANTED, Parking
from handlers.managers.packed import Packed, Packer
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
#: Number of documents that are looked at before other tasks run.
AT_A_TIME = 64


class Key(NamedTuple):
    """What a document is about: one resource of a kind on one node."""

    node: str
    kind: str
    id: str


def about(document: Document) -> Key:
    node, kind, id_ = subjects.parse_wanted(document.subject)
    return Key(intern(node), intern(kind), id_)  # many documents have the same node and kind


@dataclass(slots=True)
class Kept:
    """A document of the stream, in little memory. `packed`: None for a malformed one. `signed`: whether it has the MAC
    that handlers make now. `absent`: whether it says that the VM is deleted. `read`: the number of the last read of all
    documents that has found it.
    """

    key: Key
    position: int
    stored: float
    """When it was stored, in seconds since 1970."""
    packed: Packed | None
    signed: bool
    absent: bool
    read: int

    @property
    def tombstone(self) -> bool:
        return self.signed and self.absent

    @property
    def wanted(self) -> Wanted | None:
        return None if self.packed is None else Wanted.model_validate_json(self.packed.body)

    def has(self, body: bytes) -> bool:
        """Whether it is valid and has these bytes."""
        return self.packed is not None and self.packed.body == body


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
        self._packer = Packer()
        self._kept: dict[str, Kept | tuple[Kept, ...]] = {}
        """By the ids of the resources. Nearly all have one document."""
        self._reads = 0
        #: while all documents are being read: the keys of those that were written or read meanwhile
        self._touched: set[Key] | None = None
        self._connection = documents.connection
        self._read_at = 0.0

    def get(self, key: Key) -> Wanted | None:
        """The document of a resource on a node. None if there is none, or a malformed one."""
        found = self._find(key)
        return found.wanted if found is not None else None

    def stored_at(self, key: Key) -> datetime:
        """When a document that `get` has was stored."""
        found = self._find(key)
        assert found is not None
        return datetime.fromtimestamp(found.stored, UTC)

    def position(self, key: Key) -> int:
        """The position of the stored document, also of a malformed one; 0 if there is none."""
        found = self._find(key)
        return found.position if found is not None else 0

    def of(self, id_: str) -> frozenset[Key]:
        """The keys of the documents of one resource."""
        return frozenset(each.key for each in self._all(id_) if each.packed is not None)

    def ids(self) -> list[str]:
        """The ids of all resources that have a document."""
        return list(self._kept)

    def is_tombstone(self, key: Key) -> bool:
        found = self._find(key)
        return found is not None and found.tombstone

    def is_due(self) -> bool:
        """Whether all documents have to be read: the connection is a new one, or the last time is long ago."""
        age = asyncio.get_running_loop().time() - self._read_at
        due = age > max(READ_AGAIN, READ_EACH * len(self._kept))
        return due or self._documents.connection != self._connection

    async def read(self) -> None:
        """Read all documents of the stream, page by page. Meanwhile single documents may be written."""
        connection, newer = self._documents.connection, set[Key]()
        self._touched = newer
        self._reads += 1
        try:
            async for page in self._documents.pages(subjects.wanted_of()):
                for number, document in enumerate(page):
                    if about(document) not in newer:
                        self._learn(document)
                    if number % AT_A_TIME == AT_A_TIME - 1:
                        await asyncio.sleep(0)
            for number, id_ in enumerate(list(self._kept)):
                for each in self._all(id_):
                    if each.read != self._reads and each.key not in newer:
                        self._remove(each.key)
                if number % AT_A_TIME == AT_A_TIME - 1:
                    await asyncio.sleep(0)
        finally:
            self._touched = None
        self._connection = connection
        self._read_at = asyncio.get_running_loop().time()

    def learn(self, document: Document) -> None:
        """Keep a document of the stream. A malformed one is parked, and replaced if there should be one."""
        self._touch(about(document))
        self._learn(document)

    def _learn(self, document: Document) -> None:
        key = about(document)
        known = self._find(key)
        if known is not None and known.position == document.position and known.has(document.body):
            known.signed, known.read = self._is_signed(document), self._reads
            return
        try:
            found = Wanted.model_validate_json(document.body)
            if Key(found.node, found.kind, found.vm) != key:
                raise ValueError("node, kind or id differ from those in its subject")
        except ValueError as error:
            log.error("malformed wanted document", subject=document.subject, error=reason(error))
            self.malformed.append((document, reason(error)))
            self._keep(key, None, document)
        else:
            self._keep(key, found, document)

    async def read_of(self, id_: str, own: Key | None) -> None:
        """Read the documents of one VM from the stream. Some may have been removed by another process. `own`: the key
        that it has now.
        """
        before = {key: self.position(key) for key in {*self.of(id_), own} if key is not None}
        stored = await self._documents.all(subjects.wanted("*", "vm", id_))
        for key in before.keys() - {about(document) for document in stored}:
            if self.position(key) == before[key]:
                self._forget(key)
        for document in stored:
            self.learn(document)

    def notice(self, document: Document) -> bool:
        """Take a document of the stream, whoever wrote it. Returns whether it is new here."""
        key = about(document)
        known = self._find(key)
        mine = document.body == self._writing.get(key) or (known is not None and known.has(document.body))
        signed = self._is_signed(document)
        if document.position <= self.position(key) or (mine and signed):
            return False
        if not signed:
            log.warning("a wanted document that handlers did not sign is replaced", subject=document.subject)
        self.learn(document)
        return True

    async def put(self, fresh: Wanted) -> None:
        """Replace the document, unless it is the same. Raises Conflict if another process replaced it."""
        key = Key(fresh.node, "vm", fresh.vm)
        before = self._find(key)
        stored = before.wanted if before is not None and before.signed else None
        if stored is not None and same(stored, fresh):
            return
        subject = subjects.wanted(*key)
        body = fresh.model_dump_json().encode()
        self._writing[key] = body
        try:
            mac = self._keys.mac(key.node, LABEL, subject, body) if self._keys is not None else None
            position = await self._documents.put(subject, body, last=self.position(key), mac=mac)
            if self.position(key) > position:  # a newer one came with the stream before the reply
                raise Conflict(subject)
            self._touch(key)
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

    def _keep(self, key: Key, found: Wanted | None, document: Document) -> None:
        signed = self._is_signed(document)
        absent = found is not None and found.desired is Desired.ABSENT
        packed = self._packer.pack(found, document.body) if found is not None else None
        stored = document.stored_at.timestamp()
        kept = Kept(key, document.position, stored, packed, signed, absent, self._reads)
        others = tuple(each for each in self._all(key.id) if each.key != key)
        self._kept[key.id] = (*others, kept) if others else kept

    def _forget(self, key: Key) -> None:
        self._touch(key)
        self._remove(key)

    def _remove(self, key: Key) -> None:
        others = tuple(each for each in self._all(key.id) if each.key != key)
        self._kept.pop(key.id, None)
        if others:
            self._kept[key.id] = others if len(others) > 1 else others[0]

    def _all(self, id_: str) -> tuple[Kept, ...]:
        found = self._kept.get(id_, ())
        return (found,) if isinstance(found, Kept) else found

    def _find(self, key: Key) -> Kept | None:
        return next((each for each in self._all(key.id) if each.key == key), None)

    def _touch(self, key: Key) -> None:
        if self._touched is not None:
            self._touched.add(key)
