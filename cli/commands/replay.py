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
from cli.client.waiting import passed_over
from cli.commands import events
from cli.commands.vm import find
from runtime.bus.header_text import encoded

app = typer.Typer(help="Show what happened, from the log.", no_args_is_help=True)

#: Members of a CloudEvent in JSON that its digest does not cover.
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
    broken = breaks([event for event in told if says_event(event)])
    strange = [event for event in told if not says_event(event)]
    rows = timeline(session, told)
    if session.output is Output.JSON:
        output.emit_json({"id": vm_id, "timeline": rows, "events": told, "chain": {"breaks": broken}})
    else:
        output.emit(output.table(rows, COLUMNS))
        held = f"\nchain: {len(told) - len(strange)} events from the first on; every link and digest holds"
        output.emit("" if broken else held)
    if strange:
        positions = ", ".join(str(event["position"]) for event in strange)
        note(f"malformed messages, which nobody takes in, stand at {positions}; see nebula parked list")
    if broken:
        raise CliError("\n".join(["the hash chain does not hold", *(f"  {each}" for each in broken)]))


def story(session: Session, vm_id: str) -> list[Document]:
    """All events of the VM, from its first on."""
    return list(events.read(session, {"vm": vm_id, "kind": "vm"}))


def timeline(session: Session, told: Sequence[Document]) -> list[Document]:
    """One row per event. The phase is the one that the platform shows for that position."""
    rows: list[Document] = []
    before: datetime | None = None
    phase = None
    for event in told:
        if not says_event(event):
            rows.append(malformed(event))
            continue
        at = datetime.fromisoformat(event["time"])
        then = _at(session, event)
        rows.append(
            {
                "position": event["position"],
                "time": output.moment(event["time"]),
                "after": f"+{output.duration((at - before).total_seconds())}" if before else "",
                "event": event["type"].rpartition(".")[2],
                "phase": then if then != phase else "",
                "what": what(event["data"], event.get("actor", ""), event["type"].rpartition(".")[2]),
            }
        )
        before, phase = at, then
    return rows


def says_event(event: Document) -> bool:
    """Whether a message has the members of an event; the chain says whether they are right."""
    try:
        output.moment(event["time"])
        int(event["aggregateversion"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return False
    return isinstance(event.get("data"), dict) and isinstance(event.get("prevhash"), str) and bool(event.get("type"))


def malformed(event: Document) -> Document:
    """The row of a message that is no event."""
    size = len(base64.b64decode(event.get("data_base64", "")))
    what = f"no event: {size} bytes that somebody stored on this VM's subject"
    row = {"position": event["position"], "time": "", "after": "", "event": "(malformed)", "phase": "", "what": what}
    return {**row, "parked": f"log {event['position']}"}


#: What says what became of a VM, by the type of event: all that stands in it was changed, also what it took away.
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
        words.append("its plug was pulled")
    if data.get("watchdog_resets"):
        words.append(f"{data['watchdog_resets']} by its watchdog")
    for name in ("addresses", "tags"):
        if data.get(name) or (name in data and kind == "VmAddressesChanged"):
            words.append(f"{name} {output.cell(data[name])}")
    if data.get("host_keys"):
        words.append(f"host keys {output.cell([key['type'] for key in data['host_keys']])}")
    words += passed_over(data.get("considered", []))
    return ", ".join(words)


def breaks(told: Sequence[Document]) -> list[str]:
    """The places where the chain of digests is broken: one line each.

    Each event has to name the digest of the one before it (zeros in the first), and its own digest has to be that of
    its content as we see it: computed here, so that the platform's word is not all there is. Of an event that does not
    follow, the next one may still be the successor: that is said once.
    """
    found = []
    version, previous = 0, GENESIS
    stray = (version, previous)
    for event in told:
        where = f"position {event['position']}"
        said = int(event["aggregateversion"])
        follows = (said - 1, event["prevhash"]) in ((version, previous), stray)
        if not follows and said != version + 1:
            found.append(f"{where} is event {said} of this VM, not {version + 1}")
        if not follows and event["prevhash"] != previous:
            found.append(f"{where} follows {event['prevhash'][:12]}…, but the event before it is {previous[:12]}…")
        if event["digest"] not in digests(event):
            found.append(f"{where} was altered: its content does not have the digest {event['digest'][:12]}…")
        stray = (said, event["digest"])
        if follows:
            version, previous = stray
    return found


def digests(event: Document) -> set[str]:
    """The digests that an event of this content may have.

    SHA-256 over its subject, its attributes in the order of their names, and its data. Attributes are encoded as
    headers are; earlier versions wrote spaces into headers as they are.
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
