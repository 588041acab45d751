"""What the servers of the bus refuse, for auditors: messages and subscriptions without permission, and connections
without a valid credential. The records go to the refused calls (`nebula refusals`).

A server tells only the sender about a publish that it refuses, so the log of our own server is read. About a connection
without a valid credential, each server tells the account SYS. A credential that nobody has checked may have any name.
"""

import asyncio
import hashlib
import ipaddress
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError

from runtime import logs, subjects
from runtime.bus.accounts.jwt import claims
from runtime.bus.accounts.table import A_NODE, GUEST_DATA, ROLES
from runtime.bus.malformed import cut
from runtime.bus.refused_calls import Refusal

log = logs.get(__name__)

#: Seconds between two looks at the log; equal refusals in between become one record.
EVERY = 1.0
#: Bytes of the log per look. What a flood writes beyond that is not counted.
MOST_BYTES = 4 * 1024 * 1024
#: Records per look, and of one credential or address. More are counted in one record without a subject.
MOST, MOST_OF_ONE = 200, 10
#: Connections whose names are remembered.
MOST_NAMES = 10_000
#: The subjects on which servers tell about connections.
CONNECTED, NOT_CONNECTED = "$SYS.ACCOUNT.*.CONNECT", "$SYS.SERVER.*.CLIENT.AUTH.ERR"
OTHERS = "(others)"
PERMISSION, CREDENTIAL = "bus_permission", "bus_credential"

_QUOTED = r'"(?:[^"\\]|\\.)*"'
#: A line of nats-server. It quotes what a client chooses, so no client can write a line about another one.
_VIOLATION = re.compile(
    rf"\[ERR\] (?P<address>\S+):\d+ - cid:\d+ - {_QUOTED} - "
    rf'"A[A-Z2-7]+/[A-Z]*/jwt:(?P<key>U[A-Z2-7]+)" - (?P<what>Publish|Subscription)[A-Za-z ]* Violation - '
    rf"[A-Za-z ]*(?P<subject>{_QUOTED})"
)


class Entry(NamedTuple):
    """What was refused, without its time."""

    status: int
    code: str
    address: str
    credential: str | None
    method: str
    path: str

    @property
    def source(self) -> str:
        return f"bus {self.credential}" if self.status == 403 else f"bus address {self.address}"


def violation(line: str) -> Entry | None:
    """The refused message or subscription in a line of a server's log, if it is about one."""
    found = _VIOLATION.search(line)
    if found is None:
        return None
    method = "PUBLISH" if found["what"] == "Publish" else "SUBSCRIBE"
    return Entry(403, PERMISSION, address(found["address"]), found["key"], method, cut(found["subject"][1:-1])[:256])


def address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        return cut(text)[:64]


def actor(name: str) -> str | None:
    """The principal of a credential with this name."""
    if name in ROLES:
        return f"system:{name}"
    if name.startswith(f"{GUEST_DATA}-"):
        return f"system:{name}"  # of one node
    return f"node:{name.removeprefix(f'{A_NODE}-')}" if name.startswith(f"{A_NODE}-") else None


class BusRefusals:
    """Records what is refused. `nc`, `system`: connections of the roles `authority` and `system`; `file`: the server's
    log; None if it cannot be read here, and then only refused connections are recorded.
    """

    def __init__(self, nc: Client, system: Client, file: Path | None) -> None:
        self._nc = nc
        self._system = system
        self._file = file
        self._offset: int | None = None
        self._names: dict[str, str] = {}
        self._waiting: dict[Entry, int] = {}
        self._complaint = ""

    async def listen(self) -> None:
        """Hear from now on who connects, and who may not."""
        await self._system.subscribe(CONNECTED, cb=self._connected)
        await self._system.subscribe(NOT_CONNECTED, cb=self._not_connected)

    async def run(self) -> None:
        """Record what is refused, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """Record what was refused since the last look."""
        try:
            lines = await asyncio.to_thread(self._read)
        except OSError as error:
            self._complain(f"cannot read the log of the bus: {error.strerror}")
            lines = []
        for line in lines:
            if (entry := violation(line)) is not None:
                self.note(entry)
        await self._write()

    def note(self, entry: Entry, count: int = 1) -> None:
        """Count a refusal."""
        if entry not in self._waiting:
            if sum(each.source == entry.source for each in self._waiting) >= MOST_OF_ONE:
                entry = entry._replace(method=OTHERS, path=OTHERS)
            if entry not in self._waiting and len(self._waiting) >= MOST:
                entry = Entry(entry.status, entry.code, OTHERS, None, OTHERS, OTHERS)
        self._waiting[entry] = self._waiting.get(entry, 0) + count

    def _read(self) -> list[str]:
        """The new lines of the log; at the first look, those since the last start of the server. Raises OSError."""
        if self._file is None:
            return []
        size = self._file.stat().st_size
        with self._file.open("rb") as file:
            if self._offset is None:
                begin = max(0, size - MOST_BYTES)
                file.seek(begin)
                self._offset = begin + max(0, file.read(size - begin).rfind(b"Starting nats-server"))
            if size < self._offset:  # it was rotated
                self._offset = 0
            if size - self._offset > MOST_BYTES:
                log.warning("the bus refuses more than can be recorded", bytes=size - self._offset)
                self._offset = size - MOST_BYTES
            file.seek(self._offset)
            found = file.read(MOST_BYTES)
        whole = found[: found.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.decode(errors="replace").split("\n")

    async def _write(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for entry, count in waiting.items():
            name = self._names.get(entry.credential) if entry.credential is not None else None
            refusal = Refusal(
                at=datetime.now(UTC),
                status=entry.status,
                code=entry.code,
                address=entry.address,
                credential=entry.credential,
                actor=actor(name) if name is not None and entry.status == 403 else None,
                method=entry.method,
                path=entry.path,
                request="",
                count=count,
            )
            subject = subjects.refusal(hashlib.sha256(entry.source.encode()).hexdigest()[:16])
            body = refusal.model_dump_json(exclude_none=True).encode()
            try:
                await self._nc.jetstream(timeout=5).publish(subject, body, stream=subjects.REFUSALS)
            except (NatsError, JetStreamError, OSError, TimeoutError) as error:
                self.note(entry, count)  # such as before the first start of handlers, which make the stream
                self._complain(f"what the bus refuses is not recorded yet: {error!r}")
            else:
                shown = refusal.model_dump(mode="json", exclude={"at", "request"}, exclude_none=True)
                log.warning("refused on the bus", **shown)
                self._complaint = ""

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            log.warning(text)
            self._complaint = text

    async def _connected(self, msg: Msg) -> None:
        for client in told(msg):
            key, name = client.get("user"), named(client).get("name")
            if isinstance(key, str) and isinstance(name, str):
                self._names.pop(key, None)
                self._names[key] = name
                if len(self._names) > MOST_NAMES:
                    del self._names[next(iter(self._names))]

    async def _not_connected(self, msg: Msg) -> None:
        for client in told(msg):
            key, host = named(client).get("sub"), client.get("host")
            credential = cut(key)[:64] if isinstance(key, str) else None
            self.note(Entry(401, CREDENTIAL, address(str(host)), credential, "CONNECT", ""))


def told(msg: Msg) -> Iterator[dict[str, object]]:
    """The client in a message of a server about a connection, if it has one."""
    try:
        client = json.loads(msg.data)["client"]
    except (ValueError, KeyError, TypeError):
        return
    if isinstance(client, dict):
        yield client


def named(client: dict[str, object]) -> dict[str, object]:
    """The claims in the JWT of a client; none if it has no JWT that can be read."""
    jwt = client.get("jwt")
    try:
        return dict(claims(jwt)) if isinstance(jwt, str) else {}
    except ValueError:
        return {}
