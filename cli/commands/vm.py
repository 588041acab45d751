"""`nebula vm …`: virtual machines."""

import re
from enum import StrEnum
from typing import Annotated, Any

import typer

from cli.client import output, waiting
from cli.client.client import Document, path
from cli.client.command import At, command, patient, query
from cli.client.errors import CliError, Usage
from cli.client.keys import SshKeys, public_keys
from cli.client.session import Output, Session, note
from cli.client.user_data import UserData, user_data as fields_of, warn
from cli.commands.catalog import Labels, labelled
from runtime import subjects
from runtime.text.plain import plain

app = typer.Typer(help="Virtual machines.", no_args_is_help=True)

COLUMNS: output.Columns = {
    "NAME": "name",
    "ID": "id",
    "PHASE": "phase",
    "READY": "ready",
    "PENDING": lambda row: (row.get("pending") or {}).get("verb"),
    "ADDRESS": "addresses",
    "NODE": "node",
    "IMAGE": "image",
    "VCPUS": "vcpus",
    "MEMORY": lambda row: f"{row['memory_mib']} MiB",
    "DISK": lambda row: f"{row['disk_gib']} GiB",
    "TAGS": "tags",
    "AGE": output.age("created_at"),
}

UUID = re.compile(subjects.UUID)

Name = Annotated[str, typer.Argument(metavar="VM", help="Name or id.")]
Force = Annotated[bool, typer.Option("--force", help="Power off without a shutdown; cancels a power operation.")]
Grace = Annotated[float | None, typer.Option(help="Seconds that the guest has to shut down by itself (90).")]
#: The fields that change when a VM is deleted.
DELETED: dict[str, Any] = {"phase": "deleted", "pending": None, "ready": False, "addresses": [], "address_sources": []}

Tags = Annotated[list[str] | None, typer.Option("--tag", help="Tag; may be repeated.")]


class Until(StrEnum):
    RUNNING = "running"
    READY = "ready"
    NO = "no"


class Policy(StrEnum):
    NO = "no"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


class Watchdog(StrEnum):
    DISABLED = "disabled"
    RESET = "reset"
    POWEROFF = "poweroff"


class Goal(StrEnum):
    RUNNING = "running"
    READY = "ready"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    STOPPED = "stopped"
    DELETED = "deleted"


def find(session: Session, name: str) -> str:
    """The id of the VM with this name or id. Raises CliError if there is none, or more than one."""
    if UUID.fullmatch(name.lower()):
        return name.lower()
    listed = session.api.pages(path("projects", session.project, "vms"), {"name": name})
    found = [vm for vm in listed if vm["name"] == name]
    match found:
        case [vm]:
            return str(vm["id"])
        case []:
            raise CliError(
                f"no VM is called {plain(name, keep='')} in project {session.project} "
                "(a deleted one is found by its id only)"
            )
        case _:
            candidates = [f"  {vm['id']}  {vm['phase']}, created {vm['created_at']}" for vm in found]
            lines = [f"{len(found)} VMs are called {name}; say which by id:", *candidates]
            raise CliError("\n".join(plain(each, keep="") for each in lines))


@command(app, "create")
def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="Also the guest's hostname.")],
    image: Annotated[str, typer.Option(help="Id of the image its disk is made from.")],
    vcpus: Annotated[int | None, typer.Option(min=1, help="Without a flavor: 1.")] = None,
    memory: Annotated[int | None, typer.Option(min=32, help="MiB. Without a flavor: 512.")] = None,
    disk: Annotated[int | None, typer.Option(min=1, help="GiB. Without a flavor: 4.")] = None,
    flavor: Annotated[str | None, typer.Option(help="Flavor with its size; --disk may be larger.")] = None,
    region: Annotated[str | None, typer.Option(help="Only on nodes of this region.")] = None,
    tag: Tags = None,
    label: Labels = None,
    protected: Annotated[bool, typer.Option("--protected", help="Refuse to delete it.")] = False,
    restart: Annotated[
        Policy | None, typer.Option(help="When to start it again after its guest went off (no).")
    ] = None,
    watchdog: Annotated[
        Watchdog | None, typer.Option(help="What a watchdog device does to a guest that hangs (disabled).")
    ] = None,
    ssh_key: SshKeys = None,
    user_data: UserData = None,
    description: Annotated[str | None, typer.Option(help="Its purpose, on one line.")] = None,
    id: Annotated[str | None, typer.Option(help="UUID of your own choice.")] = None,
    wait: Annotated[Until, typer.Option(help="running: the domain is up; ready: cloud-init is done.")] = Until.RUNNING,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say whether it would be accepted, and on which node it would be.")
    ] = False,
) -> None:
    """Create a VM and start it."""
    given = {
        "id": id,
        "name": name,
        "image": image,
        "flavor": flavor,
        "vcpus": vcpus or (None if flavor else 1),
        "memory_mib": memory or (None if flavor else 512),
        "disk_gib": disk or (None if flavor else 4),
        "region": region,
        "tags": tag or [],
        "labels": labelled(label) if label else None,
        "protected": protected or None,
        "restart_policy": restart,
        "watchdog": watchdog,
        "description": description,
        "ssh_keys": public_keys(ssh_key),
        **fields_of(user_data),
    }
    body = {field: value for field, value in given.items() if value is not None}
    if dry_run:
        _preview(session, body)
        return
    answer = session.api.send("POST", path("projects", session.project, "vms"), body, key=session.key)
    warn(answer["operation"])
    if session.wait and wait is not Until.NO:
        answer["operation"] = waiting.operation(session, answer["operation"])
        answer["vm"] = waiting.vm(session, session.project, answer["vm"]["id"], wait)
    _show(session, answer)


def _preview(session: Session, body: Document) -> None:
    """What a create with this body would do."""
    found = session.api.send("POST", path("projects", session.project, "vm-preview"), body)
    warn(found)
    if session.output is not Output.JSON:
        found = {**found, "considered": waiting.considered(found["considered"])}
        found["node"] = found["node"] or "none has room now: it would wait"
        del found["warnings"]
    output.one(session, found)


@query(app, "list")
def list_(
    session: Session,
    phase: Annotated[str | None, typer.Option(help="Only those in this phase.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only those with this tag.")] = None,
    name: Annotated[str | None, typer.Option(help="Only those of this name.")] = None,
    node: Annotated[str | None, typer.Option(help="Only those on this node.")] = None,
    label: Annotated[str | None, typer.Option(metavar="KEY[=VALUE]", help="Only those with such a label.")] = None,
    everywhere: Annotated[bool, typer.Option("--all-projects", help="Those of all projects that you may see.")] = False,
    at: At = None,
) -> None:
    """List the VMs of a project, without deleted ones."""
    wanted = {"phase": phase, "tag": tag, "label": label, "name": name, "node": node, "at": at}
    if everywhere:
        output.listing(session, session.api.pages(path("vms"), wanted), {"PROJECT": "project", **COLUMNS})
    else:
        output.listing(session, session.api.pages(path("projects", session.project, "vms"), wanted), COLUMNS)


@query(app, "show")
def show(
    session: Session,
    vm: Name,
    at: At = None,
) -> None:
    """Show a VM as it is now, or as it was at a time in the past."""
    state = session.api.get(path("projects", session.project, "vms", find(session, vm)), {"at": at})
    if session.output is not Output.JSON:
        state["considered"] = waiting.considered(state.get("considered") or [])
    output.one(session, state)


@command(app, "start")
def start(session: Session, vm: Name) -> None:
    """Start a stopped or failed VM."""
    _act(session, vm, "start", {})


@command(app, "stop")
def stop(session: Session, vm: Name, force: Force = False, grace: Grace = None) -> None:
    """Shut a VM down; after the grace period, power it off."""
    _act(session, vm, "stop", _power(force, grace))


@command(app, "restart")
def restart(session: Session, vm: Name, force: Force = False, grace: Grace = None) -> None:
    """Shut a VM down and boot it again."""
    _act(session, vm, "restart", _power(force, grace))


@command(app, "pause")
def pause(session: Session, vm: Name) -> None:
    """Pause a VM: its CPUs stop, it keeps its memory."""
    _act(session, vm, "pause", {})


@command(app, "suspend")
def suspend(session: Session, vm: Name) -> None:
    """Suspend a VM: its memory is saved to its node's disk and freed on the node."""
    _act(session, vm, "suspend", {})


@command(app, "resume")
def resume(session: Session, vm: Name) -> None:
    """Continue a paused or suspended VM."""
    _act(session, vm, "resume", {})


@command(app, "resize")
def resize(
    session: Session,
    vm: Name,
    vcpus: Annotated[int | None, typer.Option(min=1)] = None,
    memory: Annotated[int | None, typer.Option(min=32, help="MiB.")] = None,
    disk: Annotated[int | None, typer.Option(min=1, help="GiB; a disk only grows.")] = None,
) -> None:
    """Change the size of a VM. A running VM gets it at its next start."""
    given = {"vcpus": vcpus, "memory_mib": memory, "disk_gib": disk}
    body = {field: value for field, value in given.items() if value is not None}
    if not body:
        raise Usage("give at least one of --vcpus, --memory, --disk")
    if _act(session, vm, "resize", body)["vm"].get("pending_resize"):
        note("the VM runs with its old size until it is stopped and started, or restarted")


@command(app, "rebuild")
def rebuild(
    session: Session,
    vm: Name,
    image: Annotated[str | None, typer.Option(help="Id of the image its new disk is made from (the same).")] = None,
    ssh_key: SshKeys = None,
    user_data: UserData = None,
) -> None:
    """Make a new disk for a VM and boot it. The old disk is deleted; name and address stay."""
    given = {
        "image": image,
        "ssh_keys": public_keys(ssh_key) if ssh_key else None,
        **fields_of(user_data),
    }
    _act(session, vm, "rebuild", {field: value for field, value in given.items() if value is not None})


@command(app, "rescue")
def rescue(
    session: Session,
    vm: Name,
    image: Annotated[str | None, typer.Option(help="Id of the image to boot from (the VM's own).")] = None,
    force: Force = False,
    grace: Grace = None,
) -> None:
    """Boot a VM from a rescue image, with its own disk as the second one, until it is unrescued."""
    _act(session, vm, "rescue", ({} if image is None else {"image": image}) | _power(force, grace))


@command(app, "unrescue")
def unrescue(session: Session, vm: Name, force: Force = False, grace: Grace = None) -> None:
    """Boot a VM from its own disk again. The rescue disk is deleted."""
    _act(session, vm, "unrescue", _power(force, grace))


@command(app, "retry")
def retry(session: Session, vm: Name) -> None:
    """Try again what failed: start, stop or delete the VM."""
    _act(session, vm, "retry", {})


@command(app, "abandon")
def abandon(session: Session, vm: Name) -> None:
    """Give up the pending operation; the VM stays as it is."""
    _act(session, vm, "abandon", {})


@command(app, "forget")
def forget(
    session: Session, vm: Name, reason: Annotated[str, typer.Option(help="Why, in a sentence, for the log.")]
) -> None:
    """Mark a VM deleted when its node is permanently lost. If the node comes back, it removes the VM."""
    vm_id = find(session, vm)
    target = path("projects", session.project, "vms", vm_id, "forget")
    answer = session.api.send("POST", target, {"reason": reason}, key=session.key)
    if session.wait:
        answer["operation"] = waiting.operation(session, answer["operation"])
        answer["vm"] = {**answer["vm"], **DELETED}
    _show(session, answer)


@command(app, "delete")
def delete(session: Session, vm: Name) -> None:
    """Delete a VM with its disk and its secrets. Its history stays."""
    vm_id = find(session, vm)
    answer = session.api.send("DELETE", path("projects", session.project, "vms", vm_id), key=session.key)
    if session.wait:
        answer["operation"] = waiting.operation(session, answer["operation"])
        answer["vm"] = {**answer["vm"], **DELETED}
    _show(session, answer)


@command(app, "tag")
def tag(session: Session, vm: Name, tags: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Replace a VM's tags by these; without any, remove all."""
    _change(session, vm, {"tags": tags or []})


@command(app, "label")
def label(
    session: Session, vm: Name, labels: Annotated[list[str] | None, typer.Argument(metavar="[KEY[=VALUE]]...")] = None
) -> None:
    """Replace a VM's labels by these; without any, remove all."""
    _change(session, vm, {"labels": labelled(labels or [])})


@command(app, "rename")
def rename(
    session: Session, vm: Name, name: Annotated[str, typer.Argument(metavar="NAME", help="The new name.")]
) -> None:
    """Rename a VM. The guest gets the name as its hostname at its next boot."""
    _change(session, vm, {"name": name})


@command(app, "describe")
def describe(session: Session, vm: Name, description: Annotated[str, typer.Argument()]) -> None:
    """Describe a VM; an empty text removes the description."""
    _change(session, vm, {"description": description})


@command(app, "restart-policy")
def restart_policy(session: Session, vm: Name, policy: Annotated[Policy, typer.Argument()]) -> None:
    """Set when a VM is started again after its guest went off: always, on-failure (it crashed), or no."""
    _change(session, vm, {"restart_policy": policy})


@command(app, "watchdog")
def watchdog(session: Session, vm: Name, action: Annotated[Watchdog, typer.Argument()]) -> None:
    """Set what a watchdog device does from the next start of a VM on: reset, poweroff, or disabled (no device)."""
    _change(session, vm, {"watchdog": action})


@command(app, "protect")
def protect(session: Session, vm: Name) -> None:
    """Refuse to delete a VM from now on."""
    _change(session, vm, {"protected": True})


@command(app, "unprotect")
def unprotect(session: Session, vm: Name) -> None:
    """Let a VM be deleted again."""
    _change(session, vm, {"protected": False})


@patient(app, "wait")
def wait(
    session: Session, vm: Name, goal: Annotated[Goal, typer.Option("--for", help="What to wait for.")] = Goal.READY
) -> None:
    """Wait until a VM has a state, such as running or ready."""
    state = waiting.vm(session, session.project, find(session, vm), goal)
    if session.output is Output.JSON:
        output.emit_json(state)
    else:
        output.line(f"{state['id']} {waiting.describe(state)}")


def _act(session: Session, vm: str, verb: str, body: Document) -> Document:
    target = path("projects", session.project, "vms", find(session, vm), verb)
    answer = session.api.send("POST", target, body, key=session.key)
    warn(answer["operation"])
    return _finish(session, answer)


def _change(session: Session, vm: str, body: Document) -> None:
    target = path("projects", session.project, "vms", find(session, vm))
    _finish(session, session.api.send("PATCH", target, body, key=session.key))


def _finish(session: Session, answer: Document) -> Document:
    if session.wait:
        answer["operation"] = op = waiting.operation(session, answer["operation"])
        target = path("projects", op["project"], "vms", op["resource"])
        answer["vm"] = session.api.get(target, {"min_position": op["position"]})
    _show(session, answer)
    return answer


def _show(session: Session, answer: Document) -> None:
    if session.output is Output.JSON:
        output.emit_json(answer)
    else:
        output.emit(output.table([answer["vm"]], COLUMNS))
        if not session.wait:
            note(f"operation {answer['operation']['id']} is {answer['operation']['status']}")


def _power(force: bool, grace: float | None) -> Document:
    if force and grace is not None:
        raise Usage("give either --force or --grace, not both")
    return {"force": True} if force else {} if grace is None else {"grace_seconds": grace}
