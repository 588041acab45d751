"""`nebula project|tag|node|operation …`: the small resources, and what they share with images."""

from typing import Annotated

import typer

from cli.client import output, waiting
from cli.client.client import Document, path
from cli.client.command import At, command, patient, query
from cli.client.errors import Usage
from cli.client.keys import SshKeys, public_keys
from cli.client.session import Output, Session, note

projects = typer.Typer(help="Projects: groups of VMs.", no_args_is_help=True)
tags = typer.Typer(help="Tags: names that group VMs and projects.", no_args_is_help=True)
flavors = typer.Typer(help="Flavors: named sizes of VMs.", no_args_is_help=True)
nodes = typer.Typer()
operations = typer.Typer(help="Operations: every command that was accepted.", no_args_is_help=True)
#: By their names on the command line.
APPS = {"project": projects, "tag": tags, "flavor": flavors, "node": nodes, "operation": operations}


def clock(offset: float | None, warning: str | None) -> str | None:
    """`ok`, or how much a node's clock differs, if that is too much: `+300.0 s`."""
    if offset is None:
        return None
    return f"{offset:+.1f} s" if warning else "ok"


PROJECT: output.Columns = {
    "ID": "id",
    "NAME": "name",
    "TAGS": "tags",
    "SSH KEYS": lambda row: len(row["ssh_keys"]) if "ssh_keys" in row else None,
    "AGE": output.age("created_at"),
}
USAGE: output.Columns = {
    "USAGE": "usage",
    "VMS": "vms",
    "VCPUS": "vcpus",
    "MEMORY": lambda row: f"{row['memory_mib']} MiB",
    "DISK": lambda row: f"{row['disk_gib']} GiB",
}
TAG: output.Columns = {"ID": "id", "NAME": "name", "AGE": output.age("created_at")}
FLAVOR: output.Columns = {
    "ID": "id",
    "NAME": "name",
    "VCPUS": "vcpus",
    "MEMORY": lambda row: f"{row['memory_mib']} MiB",
    "DISK": lambda row: f"{row['disk_gib']} GiB",
    "FOR": lambda row: row.get("project") or "all",
    "LABELS": lambda row: ", ".join(f"{key}={value}" for key, value in row["labels"].items()),
    "DEPRECATED": "deprecated",
    "AGE": output.age("created_at"),
}
NODE: output.Columns = {
    "ID": "id",
    "STATUS": "status",
    "REGION": "region",
    "TYPE": "virt_type",
    "VMS": "vms",
    "VCPUS": lambda row: f"{row['reserved']['vcpus']} of {row['capacity']['vcpus']}",
    "MEMORY": lambda row: f"{row['reserved']['memory_mib']} of {row['capacity']['memory_mib']} MiB",
    "DISK": lambda row: f"{row['reserved']['disk_gib']} of {row['capacity']['disk_gib']} GiB",
    "SEEN": output.age("last_seen"),
    "CLOCK": lambda row: clock(row.get("clock_offset_seconds"), row.get("clock_warning")),
}
OPERATION: output.Columns = {
    "ID": "id",
    "VERB": "verb",
    "KIND": "kind",
    "RESOURCE": "resource",
    "PROJECT": "project",
    "STATUS": "status",
    "ACTOR": "actor",
    "POSITION": "position",
    "ACCEPTED": lambda row: output.moment(row["accepted_at"]),
    "PROBLEM": lambda row: (row.get("problem") or {}).get("code"),
}

Id = Annotated[str, typer.Argument(metavar="ID")]
Labels = Annotated[list[str] | None, typer.Option("--label", metavar="KEY[=VALUE]", help="Label; may be repeated.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="Tag; may be repeated.")]


def labelled(given: list[str] | None) -> dict[str, str] | None:
    """Labels from `KEY=VALUE`; None if none are given. Raises Usage."""
    if given is None:
        return None
    labels = {key: value for key, _, value in (label.partition("=") for label in given)}
    if len(labels) < len(given):
        raise Usage("a label is given more than once")
    return labels


def finish(session: Session, answer: Document, columns: output.Columns, again: str | None) -> None:
    """Wait for the operation, then show its resource, read from the path `again` (None: it was deleted)."""
    kind = answer["operation"]["kind"]
    if session.wait:
        answer["operation"] = waiting.operation(session, answer["operation"])
        if again is not None:
            answer[kind] = session.api.get(again, {"min_position": answer["operation"]["position"]})
    if session.output is Output.JSON:
        output.emit_json(answer)
    elif again is not None:
        output.emit(output.table([answer[kind]], columns))
    else:
        output.line(f"{kind} {answer['operation']['resource']}: {answer['operation']['verb']}d")
    if not session.wait:
        note(f"operation {answer['operation']['id']} is {answer['operation']['status']}")


@command(projects, "create")
def create_project(
    session: Session,
    name: Annotated[str, typer.Argument()],
    id: Annotated[str | None, typer.Option(help="The name as a slug, unless given.")] = None,
    tag: Tags = None,
    ssh_key: SshKeys = None,
    description: Annotated[str | None, typer.Option(help="Its purpose, on one line.")] = None,
) -> None:
    """Create a project. All VMs that are created in it get its SSH keys."""
    more = {"id": id or None, "description": description}
    given = {"name": name, "tags": tag or [], "ssh_keys": public_keys(ssh_key), **more}
    body = {field: value for field, value in given.items() if value is not None}
    answer = session.api.send("POST", path("projects"), body, key=session.key)
    finish(session, answer, PROJECT, path("projects", answer["project"]["id"]))


@query(projects, "list")
def list_projects(session: Session, at: At = None) -> None:
    """List all projects."""
    output.listing(session, session.api.pages(path("projects"), {"at": at}), PROJECT)


@query(projects, "show")
def show_project(session: Session, which: Id, at: At = None) -> None:
    """Show a project."""
    output.one(session, session.api.get(path("projects", which), {"at": at}))


@query(projects, "usage")
def usage_of_project(
    session: Session,
    which: Annotated[str, typer.Argument(metavar="PROJECT")],
    at: At = None,
) -> None:
    """Show the resources of a project's VMs, now or at an earlier time.

    promised: all VMs that are not deleted, with their wanted sizes. in use: VMs that run or are paused, with
    the vCPUs and the memory of their domains, and the disks of all VMs that have a node.
    """
    found = session.api.get(path("projects", which, "usage"), {"at": at})
    if session.output is Output.JSON:
        output.emit_json(found)
    else:
        rows = [{"usage": name.replace("_", " "), **found[name]} for name in ("in_use", "promised")]
        output.emit(output.table(rows, USAGE))


@command(projects, "rename")
def rename_project(session: Session, which: Id, name: Annotated[str, typer.Argument()]) -> None:
    """Rename a project; its id does not change."""
    answer = session.api.send("PATCH", path("projects", which), {"name": name}, key=session.key)
    finish(session, answer, PROJECT, path("projects", which))


@command(projects, "describe")
def describe_project(session: Session, which: Id, description: Annotated[str, typer.Argument()]) -> None:
    """Describe a project; an empty text removes the description."""
    answer = session.api.send("PATCH", path("projects", which), {"description": description}, key=session.key)
    finish(session, answer, PROJECT, path("projects", which))


@command(projects, "tag")
def tag_project(session: Session, which: Id, tags: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Replace a project's tags by these; without any, remove all."""
    answer = session.api.send("PATCH", path("projects", which), {"tags": tags or []}, key=session.key)
    finish(session, answer, PROJECT, path("projects", which))


@command(projects, "ssh-keys")
def ssh_keys_of_project(session: Session, which: Id, ssh_key: SshKeys = None) -> None:
    """Replace a project's SSH keys by these; without any, remove all.

    Every VM that is created from then on gets them. A guest that exists gets them as data at its next boot, but stock
    cloud-init installs keys at a guest's first boot only.
    """
    body = {"ssh_keys": public_keys(ssh_key)}
    answer = session.api.send("PATCH", path("projects", which), body, key=session.key)
    finish(session, answer, PROJECT, path("projects", which))


@command(projects, "delete")
def delete_project(session: Session, which: Id) -> None:
    """Delete a project that has no VMs left."""
    finish(session, session.api.send("DELETE", path("projects", which), key=session.key), PROJECT, None)


@command(tags, "create")
def create_tag(
    session: Session,
    name: Annotated[str, typer.Argument()],
    id: Annotated[str | None, typer.Option(help="The name as a slug, unless given.")] = None,
) -> None:
    """Create a tag."""
    body = {"name": name, **({"id": id} if id else {})}
    answer = session.api.send("POST", path("tags"), body, key=session.key)
    finish(session, answer, TAG, path("tags", answer["tag"]["id"]))


@query(tags, "list")
def list_tags(session: Session, at: At = None) -> None:
    """List all tags."""
    output.listing(session, session.api.pages(path("tags"), {"at": at}), TAG)


@command(tags, "rename")
def rename_tag(session: Session, tag: Id, name: Annotated[str, typer.Argument()]) -> None:
    """Rename a tag; its id does not change."""
    answer = session.api.send("PATCH", path("tags", tag), {"name": name}, key=session.key)
    finish(session, answer, TAG, path("tags", tag))


@command(tags, "delete")
def delete_tag(session: Session, tag: Id) -> None:
    """Delete a tag that no VM and no project has."""
    finish(session, session.api.send("DELETE", path("tags", tag), key=session.key), TAG, None)


@command(flavors, "create")
def create_flavor(
    session: Session,
    name: Annotated[str, typer.Argument()],
    vcpus: Annotated[int, typer.Option(help="Virtual CPUs.")],
    memory: Annotated[int, typer.Option(help="Memory in MiB.")],
    disk: Annotated[int, typer.Option(help="Disk in GiB.")],
    id: Annotated[str | None, typer.Option(help="The name as a slug, unless given.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Only for the VMs of --project.")] = False,
    label: Labels = None,
    description: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Create a flavor. Its size never changes: for another size create another flavor, and deprecate this one."""
    optional = {
        "id": id,
        "project": session.project if private else None,
        "labels": labelled(label),
        "description": description,
    }
    body = {"name": name, "vcpus": vcpus, "memory_mib": memory, "disk_gib": disk}
    body |= {field: value for field, value in optional.items() if value is not None}
    answer = session.api.send("POST", path("flavors"), body, key=session.key)
    finish(session, answer, FLAVOR, path("flavors", answer["flavor"]["id"]))


@query(flavors, "list")
def list_flavors(session: Session, at: At = None) -> None:
    """List all flavors; with --project, those that it can use."""
    wanted = {"project": session.project_given, "at": at}
    output.listing(session, session.api.pages(path("flavors"), wanted), FLAVOR)


@query(flavors, "show")
def show_flavor(session: Session, flavor: Id, at: At = None) -> None:
    """Show a flavor."""
    output.one(session, session.api.get(path("flavors", flavor), {"at": at}))


@command(flavors, "change")
def change_flavor(
    session: Session,
    flavor: Id,
    name: Annotated[str | None, typer.Option(help="Another name; its id does not change.")] = None,
    label: Labels = None,
    description: Annotated[str | None, typer.Option(help="An empty text removes it.")] = None,
) -> None:
    """Change the name, labels or description of a flavor. Fields that are not given stay; labels replace all labels."""
    given = {"name": name, "labels": labelled(label), "description": description}
    body = {field: value for field, value in given.items() if value is not None}
    answer = session.api.send("PATCH", path("flavors", flavor), body, key=session.key)
    finish(session, answer, FLAVOR, path("flavors", flavor))


@command(flavors, "deprecate")
def deprecate_flavor(session: Session, flavor: Id) -> None:
    """Refuse a flavor for new VMs; existing VMs keep it."""
    finish(
        session,
        session.api.send("POST", path("flavors", flavor, "deprecate"), key=session.key),
        FLAVOR,
        path("flavors", flavor),
    )


@command(flavors, "restore")
def restore_flavor(session: Session, flavor: Id) -> None:
    """Allow a deprecated flavor for new VMs again."""
    finish(
        session,
        session.api.send("POST", path("flavors", flavor, "restore"), key=session.key),
        FLAVOR,
        path("flavors", flavor),
    )


@command(flavors, "delete")
def delete_flavor(session: Session, flavor: Id) -> None:
    """Delete a flavor from which no VM was made."""
    finish(session, session.api.send("DELETE", path("flavors", flavor), key=session.key), FLAVOR, None)


@query(nodes, "list")
def list_nodes(session: Session, at: At = None) -> None:
    """List all nodes."""
    output.listing(session, session.api.pages(path("nodes"), {"at": at}), NODE)


@query(nodes, "show")
def show_node(session: Session, node: Id, at: At = None) -> None:
    """Show a node."""
    output.one(session, session.api.get(path("nodes", node), {"at": at}))


@command(nodes, "cordon")
def cordon(session: Session, node: Id) -> None:
    """Place no new VMs on a node; its present VMs keep running."""
    answer = session.api.send("POST", path("nodes", node, "cordon"), {}, key=session.key)
    finish(session, answer, NODE, path("nodes", node))


@command(nodes, "uncordon")
def uncordon(session: Session, node: Id) -> None:
    """Place new VMs on a node again."""
    answer = session.api.send("POST", path("nodes", node, "uncordon"), {}, key=session.key)
    finish(session, answer, NODE, path("nodes", node))


@command(nodes, "retire")
def retire(session: Session, node: Id) -> None:
    """Retire a node that will not come back. It has to be lost, and each of its VMs lost or forgotten.

    A daemon that comes back with its name is refused, until it is started with NEBULA_TAKE_OVER=true.
    """
    answer = session.api.send("POST", path("nodes", node, "retire"), {}, key=session.key)
    finish(session, answer, NODE, None)


@command(nodes, "set-seed-url")
def set_seed_url(
    session: Session, node: Id, seed_url: Annotated[str, typer.Argument(help="http://HOST:PORT/")]
) -> None:
    """Set the URL at which the guests of a node get their cloud-init data, from their next start on."""
    answer = session.api.send("PATCH", path("nodes", node), {"seed_url": seed_url}, key=session.key)
    finish(session, answer, NODE, path("nodes", node))


@query(operations, "list")
def list_operations(
    session: Session,
    vm: Annotated[str | None, typer.Option(help="Only those on the VM of this id.")] = None,
    status: Annotated[
        str | None, typer.Option(help="accepted, running, succeeded, failed, timed_out or cancelled.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to show.")] = 50,
    at: At = None,
) -> None:
    """List the newest operations."""
    wanted = {"project": session.project_given, "vm": vm, "status": status, "limit": min(limit, 500), "at": at}
    found = session.api.pages(path("operations"), wanted)
    output.listing(session, [row for _, row in zip(range(limit), found, strict=False)], OPERATION)


@query(operations, "show")
def show_operation(session: Session, operation: Id, at: At = None) -> None:
    """Show an operation and its events."""
    output.one(session, session.api.get(path("operations", operation), {"at": at}))


@patient(operations, "wait")
def wait_operation(session: Session, operation: Id) -> None:
    """Wait until an operation has ended; the exit status shows its outcome."""
    ended = waiting.operation(session, session.api.get(path("operations", operation)))
    if session.output is Output.JSON:
        output.emit_json(ended)
    else:
        output.emit(output.table([ended], OPERATION))
