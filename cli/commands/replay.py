"""`nebula replay vm …`: the events of a VM, with the proof that none is missing or altered."""

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated

import typer

from cli.client import output
from cli.client.client import Document, path
from cli.client.command import query
from cli.client.errors import CliError, Refused
from cli.client.session import Output, Session, note
from cli.client.waiting import not_chosen
from cli.commands import events
from cli.commands.vm import find
from runtime.bus.header_text import encoded

app = typer.Typer(help="Show what happened, from the log.", no_args_is_help=True)

#: Members of a CloudEvent in JSON that its digest does not cover.
NOT_COVERED = frozenset({"position", "digest", "subject", "datacontenttype", "data", "prev", "words", "why"})
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
    """Show every event of a VM: its time, the time since the previous one, its changes. Verify the hash chain."""
    vm_id = find(session, vm)
    found_events = story(session, vm_id)
    if not found_events:
        raise CliError(f"there is no VM {vm_id} in the log")
    broken = breaks([event for event in found_events if says_event(event)])
    ignored = [event for event in found_events if not says_event(event)]
    rows = timeline(session, found_events)
    if session.output is Output.JSON:
        output.emit_json({"id": vm_id, "timeline": rows, "events": found_events, "chain": {"breaks": broken}})
    else:
        output.emit(output.table(rows, COLUMNS))
        intact = f"\nchain: {len(found_events) - len(ignored)} events from the first on; every link and digest holds"
        output.emit("" if broken else intact)
    if ignored:
        positions = ", ".join(str(event["position"]) for event in ignored)
        note(f"malformed messages at positions {positions} are ignored; see nebula parked list")
    if broken:
        raise CliError("\n".join(["the hash chain does not hold", *(f"  {each}" for each in broken)]))


def story(session: Session, vm_id: str) -> list[Document]:
    """All events of the VM, from the first one on."""
    return list(events.read(session, {"vm": vm_id, "kind": "vm"}))


def timeline(session: Session, found_events: Sequence[Document]) -> list[Document]:
    """One row per event. The phase is the one that the platform shows for that position."""
    rows: list[Document] = []
    before: datetime | None = None
    phase = None
    for event in found_events:
        if not says_event(event):
            rows.append(malformed(event))
            continue
        at = datetime.fromisoformat(event["time"])
        phase_then = _at(session, event)
        rows.append(
            {
                "position": event["position"],
                "time": output.moment(event["time"]),
                "after": f"+{output.duration((at - before).total_seconds())}" if before else "",
                "event": event["type"].rpartition(".")[2],
                "phase": phase_then if phase_then != phase else "",
                "what": what(event["data"], event.get("actor", ""), event["type"].rpartition(".")[2]),
            }
        )
        before, phase = at, phase_then
    return rows


def says_event(event: Document) -> bool:
    """Whether a message has the members of an event. The check of the chain says whether they are right."""
    try:
        output.moment(event["time"])
        int(event["aggregateversion"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return False
    return isinstance(event.get("data"), dict) and isinstance(event.get("prevhash"), str) and bool(event.get("type"))


def malformed(event: Document) -> Document:
    """The row of a malformed message."""
    body = f"{len(base64.b64decode(event['data_base64']))} bytes" if "data_base64" in event else "JSON"
    what = f"not an event: {body} that somebody stored on this VM's subject"
    row = {"position": event["position"], "time": "", "after": "", "event": "(malformed)", "phase": "", "what": what}
    return {**row, "parked": f"log {event['position']}"}


#: The fields that show a change, by the type of event. An empty value means that the old one was removed.
CHANGES = {
    "VmChanged": ("name", "tags", "labels", "protected", "restart_policy", "watchdog", "description"),
    "VmTagged": ("tags",),
    "VmResized": ("spec",),
}
#: Fields of events about connections to its console.
CONSOLE = ("console", "seconds", "why")
#: Characters of one of these that are shown.
MOST_SHOWN = 60


def changes(data: Document, fields: Sequence[str]) -> Iterator[str]:
    """What an event changed: each field with its new value."""
    for field in fields:
        if data.get(field) is None:
            continue
        value = data[field]
        if field == "spec" and isinstance(value, dict):
            yield f"{value.get('vcpus')} vcpus, {value.get('memory_mib')} MiB, {value.get('disk_gib')} GiB"
            continue
        if isinstance(value, dict):
            value = [f"{name}={text}" if text else name for name, text in value.items()]
        text = "none" if value in ([], "") else output.cell(value)
        yield f"{field.replace('_', ' ')} {text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 1] + '…'}"


def what(data: Document, actor: str, kind: str = "") -> str:
    """An event in a few words."""
    words = []
    if "fingerprint" in data or "console" in data:
        words.append(f"by {actor}")
    if kind in CHANGES:
        return ", ".join([*words, *changes(data, CHANGES[kind])])
    for name in (
        "name",
        "image",
        "node",
        "step",
        "boots",
        "resets",
        "verb",
        "again",
        "cause",
        "code",
        "detail",
        "reason",
        *CONSOLE,
    ):
        if data.get(name) not in (None, ""):
            words.append(f"{name} {data[name]}")
    if data.get("forced"):
        words.append("powered off by force")
    if data.get("watchdog_resets"):
        words.append(f"{data['watchdog_resets']} by its watchdog")
    for name in ("addresses", "tags"):
        if data.get(name) or (name in data and kind == "VmAddressesChanged"):
            words.append(f"{name} {output.cell(data[name])}")
    if data.get("host_keys"):
        words.append(f"host keys {output.cell([key['type'] for key in data['host_keys']])}")
    words += not_chosen(data.get("considered", []))
    return ", ".join(words)


def breaks(found_events: Sequence[Document]) -> list[str]:
    """The places where the chain of digests is broken: one line each.

    Each event must name the digest of the previous event (zeros in the first), and its own digest must be the digest of
    its content. The digest is computed here, so the platform need not be trusted. After an event that does not fit, the
    next one may follow either it or the event before it, so one break is reported once.
    """
    found = []
    version, previous = 0, GENESIS
    last = (version, previous)
    for event in found_events:
        where = f"position {event['position']}"
        number = int(event["aggregateversion"])
        follows = (number - 1, event["prevhash"]) in ((version, previous), last)
        if not follows and number != version + 1:
            found.append(f"{where} is event {number} of this VM, not {version + 1}")
        if not follows and event["prevhash"] != previous:
            found.append(f"{where} follows {event['prevhash'][:12]}…, but the event before it is {previous[:12]}…")
        if event["digest"] not in digests(event):
            found.append(f"{where} was altered: its content does not have the digest {event['digest'][:12]}…")
        last = (number, event["digest"])
        if follows:
            version, previous = last
    return found


def digests(event: Document) -> set[str]:
    """The possible digests of an event with this content.

    SHA-256 over its subject, its attributes in the order of their names, and its data. Attributes are encoded
    as in headers; earlier versions wrote spaces into headers unchanged.
    """
    covered = sorted((name, str(value)) for name, value in event.items() if name not in NOT_COVERED)
    body = json.dumps(event["data"], separators=(",", ":"), ensure_ascii=False)
    found = set()
    for attributes in (covered, [(name, encoded(value)) for name, value in covered]):
        lines = [event["subject"], *(f"ce-{name}: {value}" for name, value in attributes), ""]
        found.add(hashlib.sha256(("\n".join(lines) + "\n" + body).encode(errors="replace")).hexdigest())
    return found


def _at(session: Session, event: Document) -> str:
    _, _, project, _, vm_id = event["subject"].split(".")
    try:
        past = session.api.get(path("projects", project, "vms", vm_id), {"at": event["position"]})
    except Refused as refusal:
        return refusal.code
    return str(past["phase"])
