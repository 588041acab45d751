"""`nebula vm guest`: information from the agent in a guest."""

import typer

from cli.client import output
from cli.client.client import Document, path
from cli.client.command import query
from cli.client.session import Output, Session, note
from cli.commands.vm import Name, find

#: Seconds that the platform may wait for the guest's agent.
AGENT = 30.0

INTERFACES: output.Columns = {
    "INTERFACE": "name",
    "MAC": "mac",
    "ADDRESSES": lambda row: [written(address) for address in row["addresses"]],
}
FILESYSTEMS: output.Columns = {
    "MOUNTPOINT": "mountpoint",
    "DEVICE": "device",
    "TYPE": "type",
    "SIZE": lambda row: output.size(row["total_bytes"]),
    "USED": lambda row: output.size(row["used_bytes"]),
    "USE": lambda row: share(row["used_bytes"], row["total_bytes"]),
}


def register(app: typer.Typer) -> None:
    query(app, "guest")(guest)


def guest(session: Session, vm: Name) -> None:
    """Ask the agent in a running guest for its system, network and filesystems."""
    target = path("projects", session.project, "vms", find(session, vm), "guest")
    found = session.api.get(target, wait=AGENT)
    if session.output is Output.JSON:
        output.emit_json(found)
        return
    output.one(session, summary(found))
    for name, columns in (("interfaces", INTERFACES), ("filesystems", FILESYSTEMS)):
        if found[name] is None:
            note(f"the agent does not report {name}")
            continue
        output.emit("")
        output.emit(output.table(found[name], columns))
        if more := found[f"more_{name}"]:
            note(f"and {more} more {name}")


def summary(found: Document) -> Document:
    system, timezone = found["os"] or {}, found["timezone"] or {}
    return {
        "hostname": found["hostname"],
        "os": system.get("name") or system.get("id"),
        "kernel": system.get("kernel_release"),
        "machine": system.get("machine"),
        "timezone": timezone.get("name"),
    }


def written(address: Document) -> str:
    prefix = address["prefix"]
    return str(address["address"]) if prefix is None else f"{address['address']}/{prefix}"


def share(used: int | None, total: int | None) -> str | None:
    return f"{100 * used / total:.0f} %" if used is not None and total else None
