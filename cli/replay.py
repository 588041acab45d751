"""`nebula replay vm …`: a VM's story, told by its events, with the proof that none is missing or altered."""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer

from cli import events, output
from cli.client import Document, path
from cli.command import query
from cli.errors import CliError, Refused
from cli.session import Output, Session
from cli.vm import find
from cli.waiting import passed_over

app = typer.Typer(help="Tell what happened, from the log.", no_args_is_help=True)

#: What a CloudEvent in JSON has beyond the attributes that its digest covers.
NOT_COVERED = frozenset({"position", "digest", "subject", "datacontenttype", "data", "prev"})
GENESIS = "0" * 64

COLUMNS: output.Columns = {
    "POSITION": "position",
    "TIME": "time",
    "AFTER": "after",
    "EVENT": "event",
    "PHASE": "phase",
    "WHAT": "what",
}


@query(app, "vm")
def vm(session: Session, vm: Annotated[str, typer.Argument(metavar="VM", help="Name, or id if deleted.")]) -> None:
    """Every event of a VM: when, how long after the one before, and what it changed. Verifies the hash chain."""
    vm_id = find(session, vm)
    told = story(session, vm_id)
    if not told:
        raise CliError(f"the log knows no VM {vm_id}")
    broken = breaks(told)
    rows = timeline(session, told)
    if session.output is Output.JSON:
        output.emit_json({"id": vm_id, "timeline": rows, "events": told, "chain": {"breaks": broken}})
    else:
        output.emit(output.table(rows, COLUMNS))
        output.emit("" if broken else f"\nchain: {len(told)} events from the first on; every link and digest holds")
    if broken:
        raise CliError("\n".join(["the hash chain does not hold", *(f"  {each}" for each in broken)]))


def story(session: Session, vm_id: str) -> list[Document]:
    """All events of the VM, from its first on."""
    return list(events.read(session, {"vm": vm_id, "kind": "vm"}))


def timeline(session: Session, told: Sequence[Document]) -> list[Document]:
    """One row per event. The phase behind each is what the platform itself says of that position."""
    rows: list[Document] = []
    before: datetime | None = None
    phase = None
    for event in told:
        at = datetime.fromisoformat(event["time"])
        then = _at(session, event)
        rows.append(
            {
                "position": event["position"],
                "time": output.moment(event["time"]),
                "after": f"+{output.duration((at - before).total_seconds())}" if before else "",
                "event": event["type"].rpartition(".")[2],
                "phase": then if then != phase else "",
                "what": what(event["data"], event.get("actor", "")),
            }
        )
        before, phase = at, then
    return rows


def what(data: Document, actor: str) -> str:
    """What an event says, in a few words."""
    words = []
    if "fingerprint" in data:
        words.append(f"by {actor}")
    for name in ("name", "image", "node", "step", "boots", "cause", "code", "detail"):
        if data.get(name) not in (None, ""):
            words.append(f"{name} {data[name]}")
    for name in ("addresses", "tags"):
        if data.get(name):
            words.append(f"{name} {output.cell(data[name])}")
    if data.get("host_keys"):
        words.append(f"host keys {output.cell([key['type'] for key in data['host_keys']])}")
    words += passed_over(data.get("considered", []))
    return ", ".join(words)


def breaks(told: Sequence[Document]) -> list[str]:
    """Where the chain of digests does not hold: a line each.

    Each event has to name the digest of the one before it (zeros in the first), and its own digest has to be that of
    its content as we see it: computed here, so that the platform's word is not all there is.
    """
    found = []
    previous = GENESIS
    for version, event in enumerate(told, start=1):
        where = f"position {event['position']}"
        if int(event["aggregateversion"]) != version:
            found.append(f"{where} is event {event['aggregateversion']} of this VM, not {version}")
        if event["prevhash"] != previous:
            found.append(f"{where} follows {event['prevhash'][:12]}…, but the event before it is {previous[:12]}…")
        if event["digest"] != digest(event):
            found.append(f"{where} was altered: its content does not have the digest {event['digest'][:12]}…")
        previous = event["digest"]
    return found


def digest(event: Document) -> str:
    """The digest of an event: SHA-256 over its subject, its attributes in the order of their names, and its data."""
    covered = sorted((name, value) for name, value in event.items() if name not in NOT_COVERED)
    lines = [event["subject"], *(f"ce-{name}: {value}" for name, value in covered), ""]
    body = json.dumps(event["data"], separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(("\n".join(lines) + "\n" + body).encode()).hexdigest()


def _at(session: Session, event: Document) -> str:
    _, _, project, _, vm_id = event["subject"].split(".")
    try:
        past = session.api.get(path("projects", project, "vms", vm_id), {"at": event["position"]})
    except Refused as refusal:
        return refusal.code
    return str(past["phase"])
