"""One event with what proves it: its place in the chain, its MAC, and the signed checkpoint that covers it."""

from typing import Literal, Required

from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from domain.access import EVENT_READ
from eventstore.integrity.proof import Covering, Proof, Proofs
from eventstore.log.envelope import Recorded
from eventstore.log.macs import MAC
from gateway.events.audit import EventView, shown
from gateway.http.parameters import MOST_POSITION, not_found, path_id
from gateway.reads.reads import answer
from gateway.state import Gateway, begins, mine, rows_reflect
from projections import events, times


class FaultView(TypedDict):
    """Why a message is no event at its position. `code`: as in docs/integrity.md."""

    code: str
    reason: str


class LinkView(TypedDict):
    """Another event of the same resource."""

    position: int
    digest: str


class CheckpointView(TypedDict):
    """A signed checkpoint of the log. `signed`: whether a known key signed it; null if the gateway knows no key.

    `matches`: whether the log, read from the checkpoint before it on, has the signed digest; null if that is too much
    to read.
    """

    position: int
    digest: str
    time: str
    key: str
    signed: bool | None
    matches: bool | None


class ChainView(TypedDict):
    """What proves an event, read from the log itself.

    `valid`: whether it is an event that may follow the previous one; if not, `fault` says why. `mac`: whether handlers
    wrote it; `not_needed` for events that are older than the keys. `linked`: whether it names the digest of the
    previous event of its resource (null in the first one). `following`: the next event, and `confirmed` whether that
    names the digest of this one; null while there is none. `checkpoint`: the first one that covers it; null if there is
    none yet.
    """

    valid: bool
    fault: FaultView | None
    mac: Literal["right", "wrong", "missing", "not_needed"]
    previous: LinkView | None
    linked: bool
    following: LinkView | None
    confirmed: bool | None
    checkpoint: CheckpointView | None


class WholeView(EventView, total=False):
    """An event, with what proves it."""

    chain: Required[ChainView]


async def event(gateway: Gateway, request: Request) -> Response:
    """An event by its position. Raises Problem (404) for what the caller may not see, as for what does not exist."""
    text = path_id(request, "event")
    position = int(text) if text.isdigit() and not text.startswith("0") else 0
    if not 0 < position <= MOST_POSITION:
        raise not_found("event", text)
    seen = mine(request, EVENT_READ)
    await gateway.fresh(request)
    own = begins(gateway, request, EVENT_READ)
    there, reflected = await events.has(gateway.pool, position, mine=seen, begins=own)
    if not there:
        await gateway.caught_up(request)
        there, reflected = await events.has(gateway.pool, position, mine=seen, begins=own)
    rows_reflect(request, reflected)
    if not there:
        raise not_found("event", text)
    recorded = await in_log(gateway, position)
    if recorded is None:
        raise not_found("event", text)
    proof = await Proofs(gateway.nc, gateway.event_keys, gateway.checkpoint_keys).of(recorded)
    return answer({**shown(recorded), "chain": chain(recorded, proof)})


async def in_log(gateway: Gateway, position: int) -> Recorded | None:
    """The message at a position of the log."""
    page = await gateway.store.between(position - 1, position)
    return page[0] if page and page[0].position == position else None


def chain(recorded: Recorded, proof: Proof) -> ChainView:
    fault = proof.fault
    return {
        "valid": fault is None,
        "fault": {"code": fault.code, "reason": fault.reason} if fault is not None else None,
        "mac": mac(recorded),
        "previous": link(proof.previous),
        "linked": proof.linked,
        "following": link(proof.following),
        "confirmed": proof.confirmed,
        "checkpoint": checkpoint(proof.covering),
    }


def mac(recorded: Recorded) -> Literal["right", "wrong", "missing", "not_needed"]:
    """Whether handlers wrote it, by its MAC."""
    fault, given = recorded.fault(), recorded.headers.get(MAC)
    if fault is None:
        return "not_needed" if given is None else "right"
    return "missing" if given is None else "wrong"


def link(recorded: Recorded | None) -> LinkView | None:
    return None if recorded is None else {"position": recorded.position, "digest": recorded.digest}


def checkpoint(covering: Covering | None) -> CheckpointView | None:
    if covering is None:
        return None
    found = covering.checkpoint
    return {
        "position": found.position,
        "digest": found.digest,
        "time": times.text(found.time),
        "key": found.key,
        "signed": covering.signed,
        "matches": covering.matches,
    }
