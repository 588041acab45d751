"""`nebula diff`: what changed between two moments, with who and why."""

from typing import Annotated

import typer

from cli.client import output
from cli.client.client import Document, path
from cli.client.command import query
from cli.client.errors import Usage
from cli.client.session import Output, Session
from cli.commands.log import LOG
from cli.commands.vm import find

WORDS = {"created": "created", "deleted": "deleted", "came_and_went": "created and deleted", "unchanged": "unchanged"}


def register(app: typer.Typer) -> None:
    query(app, "diff", LOG)(diff)


def diff(
    session: Session,
    vm: Annotated[str | None, typer.Argument(metavar="[VM]", help="Only this VM (name or id).")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="After this position or time (the beginning).")] = None,
    to: Annotated[str | None, typer.Option(help="Up to this position or time (now).")] = None,
    kind: Annotated[str | None, typer.Option(help="Only resources of this kind.")] = None,
    id: Annotated[str | None, typer.Option(help="Only the resource with this id.")] = None,
) -> None:
    """Show what changed between two moments, with who and why; with --project, only there."""
    if vm is not None and (kind is not None or id is not None):
        raise Usage("give either a VM or --kind and --id, not both")
    if vm is None and from_ is None and id is None:
        raise Usage("give --from: a position or a time; or the VM whose whole life it should be")
    project = session.project_given
    if vm is not None:
        kind, id = "vm", find(session, vm)
    wanted = {"from": from_, "to": to, "project": project, "kind": kind, "id": id}
    found = list(session.api.pages(path("diff"), wanted))
    if session.output is Output.JSON:
        output.emit_json({"items": found})
        return
    for each in found:
        show(each)


def show(item: Document) -> None:
    """One resource: what happened to it, its changes, and its events."""
    place = f" in {item['project']}" if item["project"] else ""
    output.line(f"{item['kind']} {item['name'] or item['id']}{place}: {WORDS.get(item['what'], 'changed')}")
    for change in item["changes"]:
        output.line(f"    {change['words']}")
    for event in item["events"]:
        why = f" ({event['why']})" if event["why"] else ""
        output.line(f"    {event['position']}  {output.moment(event['time'])}  {event['words']}{why}")
    if item["more_events"]:
        output.line(f"    and {item['more_events']} more events")
