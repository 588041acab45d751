"""What is done to the streams with the credential of maintenance, for auditors: handlers record it in the log.

The servers tell of each call of the JetStream API in the account where it is made, with the credential. Calls of other
accounts come in by imports, and are no maintenance. Calls that only read are not recorded.
"""

import asyncio
import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg

from runtime import logs
from runtime.bus.accounts import maintained
from runtime.bus.accounts.maintained import Maintained
from runtime.bus.accounts.table import ADVISORIES
from runtime.bus.malformed import cut
from runtime.bus.replies import InvalidReply
from runtime.bus.requests import Refused, Unanswered

log = logs.get(__name__)

#: Seconds between two looks; equal calls in between become one record.
EVERY = 1.0
#: Different calls that wait for their record. More of them are counted in one record for each verb.
MOST = 200
#: The same, for those that the servers refused.
MOST_REFUSED = 20
#: Records that wait for handlers.
MOST_UNRECORDED = 1000
OTHERS = "(others)"
#: Verbs of the JetStream API that only read.
READING = frozenset(
    {
        "INFO",
        *("STREAM.NAMES", "STREAM.LIST", "STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET"),
        *("CONSUMER.NAMES", "CONSUMER.LIST", "CONSUMER.INFO", "CONSUMER.MSG.NEXT"),
    }
)
#: Verbs of more than two words. Any other has two, or is one word.
LONG = (
    *("STREAM.MSG.GET", "STREAM.MSG.DELETE", "STREAM.PEER.REMOVE", "STREAM.LEADER.STEPDOWN"),
    *("CONSUMER.MSG.NEXT", "CONSUMER.DURABLE.CREATE", "CONSUMER.LEADER.STEPDOWN"),
)


class Call(NamedTuple):
    """A call, without its time."""

    role: str
    verb: str
    target: str
    credential: str
    address: str
    request: str
    refused: str | None


class Waiting(NamedTuple):
    """What waits to be recorded: the id of the record, the time of the first call, and the number of calls."""

    id: str
    at: datetime
    times: int


def parsed(subject: str) -> tuple[str, str]:
    """The verb and the target of a subject of the JetStream API."""
    _, _, rest = subject.partition(".API.")
    for verb in LONG:
        if rest == verb or rest.startswith(f"{verb}."):
            return verb, rest[len(verb) + 1 :]
    words = rest.split(".")
    return ".".join(words[:2]), ".".join(words[2:])


def call_of(advisory: object) -> Call | None:
    """The call in an advisory of a server, if it was made in this account and changes something."""
    if not isinstance(advisory, Mapping):
        return None
    client = advisory.get("client")
    if not isinstance(client, Mapping) or client.get("svc"):
        return None
    verb, target = parsed(line(advisory.get("subject")))
    if verb in READING:
        return None
    return Call(
        role=line(client.get("name_tag")),
        verb=verb,
        target=target,
        credential=line(client.get("user")),
        address=line(client.get("host")),
        request=line(advisory.get("request")),
        refused=refusal(advisory.get("response")),
    )


def line(value: object) -> str:
    """A text of somebody else, in one line that is not too long; empty if it is none."""
    return cut(value)[:512] if isinstance(value, str) else ""


def refusal(response: object) -> str | None:
    """Why the servers refused a call; None if they did it."""
    try:
        error = json.loads(response if isinstance(response, str) else "null")["error"]
        return line(error.get("description")) or "refused"
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


class MaintenanceRecords:
    """`nc`: a connection of the role `authority`."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._waiting: dict[Call, Waiting] = {}
        self._unrecorded: list[Maintained] = []
        self._complaint = ""

    async def listen(self) -> None:
        """Hear from now on what is called."""
        await self._nc.subscribe(ADVISORIES, cb=self._heard)

    async def _heard(self, msg: Msg) -> None:
        if b'"svc":"' in msg.data[:2000] and b'"name_tag":"' not in msg.data:
            return  # the many calls of handlers and others, without parsing them
        try:
            advisory = json.loads(msg.data)
        except ValueError:
            return
        call = call_of(advisory)
        if call is not None:
            self.note(call, str(advisory.get("id")))

    def note(self, call: Call, id_: str = "") -> None:
        """Count a call. `id_`: that of the advisory, from which the id of the record is made."""
        if call not in self._waiting:
            most = MOST if call.refused is None else MOST_REFUSED
            alike = sum((each.refused is None) == (call.refused is None) for each in self._waiting)
            if alike >= most:
                call = call._replace(target=OTHERS, address=OTHERS, request="", refused=call.refused and OTHERS)
            if call not in self._waiting and alike >= 2 * most:
                call = call._replace(verb=OTHERS)
        known = self._waiting.get(call)
        if known is None:
            record = uuid.uuid5(uuid.NAMESPACE_URL, f"nebula:maintenance:{id_}") if id_ else uuid.uuid4()
            known = Waiting(str(record), datetime.now(UTC), 0)
        self._waiting[call] = known._replace(times=known.times + 1)

    async def run(self) -> None:
        """Have recorded what is called, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """Have recorded what was called since the last look. What handlers cannot record now waits."""
        waiting, self._waiting = self._waiting, {}
        for call, each in waiting.items():
            self._queue(message(call, each))
        while self._unrecorded:
            what = self._unrecorded[0]
            try:
                await maintained.record(self._nc, what)
            except (Unanswered, Refused, InvalidReply) as error:
                if repr(error) != self._complaint:
                    log.warning("what was done to the streams is not recorded yet", error=repr(error))
                    self._complaint = repr(error)
                return
            del self._unrecorded[0]
            self._complaint = ""

    def _queue(self, what: Maintained) -> None:
        shown = what.model_dump(mode="json", exclude={"at", "id"}, exclude_none=True)
        log.warning("streams of the bus were maintained", **shown)
        if len(self._unrecorded) < MOST_UNRECORDED:
            self._unrecorded.append(what)
        else:
            log.warning("this is not recorded for auditors: too much waits already")


def message(call: Call, each: Waiting) -> Maintained:
    return Maintained(
        id=each.id,
        at=each.at,
        role=call.role,
        call=call.verb,
        target=call.target,
        credential=call.credential,
        address=call.address,
        request=call.request,
        refused=call.refused,
        count=each.times,
    )
