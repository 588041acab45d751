"""`nebula events`, `nebula event`, `nebula marks` and `nebula feed`: the log, read and followed."""

import json
import time
from collections.abc import Iterator
from typing import Annotated

import typer

from cli.client import output
from cli.client.client import RETRY, TRIES, Document, path
from cli.client.command import At, query
from cli.client.errors import CliError, Unreachable, Usage
from cli.client.session import Output, Session, note
from cli.commands.log import LOG
from cli.commands.vm import find
from runtime import subjects
from runtime.text.plain import plain

#: Events in one page, and seconds that a long poll lasts.
PAGE = 500
POLL = 20.0

MARKS: output.Columns = {
    "FROM": "from",
    "TO": "to",
    "EVENTS": "events",
    "FAILURES": "failures",
    "BEGAN": lambda row: output.moment(row["time"]),
}
HEADINGS = f"{'POSITION':<9} {'TIME':<24} {'TYPE':<32} {'OF':<50} ACTOR"


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    query(app, "events", LOG)(events)
    query(app, "event", LOG)(event)
    query(app, "marks", LOG)(marks)
    query(app, "feed", LOG)(feed)


def events(
    session: Session,
    vm: Annotated[str | None, typer.Option(help="Of this VM (name or id).")] = None,
    kind: Annotated[str | None, typer.Option(help="Only of this kind, such as vm, project or image.")] = None,
    type: Annotated[str | None, typer.Option(help="Only of this type, such as nebula.vm.VmStarted.")] = None,
    actor: Annotated[str | None, typer.Option(help="Caused by this actor.")] = None,
    operation: Annotated[str | None, typer.Option(help="Of this operation.")] = None,
    id: Annotated[str | None, typer.Option(help="Of the resource with this id, of any kind.")] = None,
    request: Annotated[str | None, typer.Option(help="Of the call with this X-Request-Id.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="From this position or time on.")] = None,
    to: Annotated[str | None, typer.Option(help="Up to this position or time.")] = None,
    after: Annotated[int | None, typer.Option(help="After this position.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many events.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more, until interrupted.")] = False,
    newest: Annotated[bool, typer.Option("--newest", help="The newest event first.")] = False,
    at: At = None,
) -> None:
    """Print the log, oldest event first. With --output json: one CloudEvent per line."""
    if newest and follow:
        raise Usage("give either --newest or --follow, not both")
    if at is not None and follow:
        raise Usage("give either --at or --follow, not both")
    wanted = {
        "project": session.project_given,
        "vm": find(session, vm) if vm else None,
        "kind": kind,
        "type": type,
        "actor": actor,
        "operation": operation,
        "id": id,
        "request": request,
        "from": from_,
        "to": to,
        "after": after,
        "at": at,
    }
    if newest:
        size = PAGE if limit is None else min(limit, PAGE)
        _print(session, session.api.pages(path("events"), {**wanted, "order": "desc", "limit": size}), limit)
        return
    _print(session, read(session, wanted, follow=follow), limit)


def event(session: Session, position: Annotated[int, typer.Argument(min=1, help="Its position in the log.")]) -> None:
    """Show one event, and what proves it: its place in the chain, its MAC, a signed checkpoint."""
    found = session.api.get(path("events", str(position)))
    if session.output is Output.JSON:
        output.emit_json(found)
        return
    chain, data = found.pop("chain"), found.pop("data", None)
    output.one(session, found)
    if data is not None:
        output.line(f"data  {json.dumps(data, ensure_ascii=False)}")
    for text in proven(chain):
        output.line(text)


def proven(chain: Document) -> Iterator[str]:
    """What proves an event, in sentences."""
    fault, before, after = chain["fault"], chain["previous"], chain["following"]
    yield "chain: it is valid" if fault is None else f"chain: it is no event: {fault['reason']} ({fault['code']})"
    if before is not None:
        linked = "names" if chain["linked"] else "does NOT name"
        yield f"chain: it {linked} the digest of the event before it, at position {before['position']}"
    if after is not None:
        confirmed = "names" if chain["confirmed"] else "does NOT name"
        yield f"chain: the next one, at position {after['position']}, {confirmed} its digest"
    yield f"MAC: {chain['mac'].replace('_', ' ')}"
    checkpoint = chain["checkpoint"]
    if checkpoint is None:
        yield "checkpoint: none covers it yet"
        return
    signed = {True: "signed by a known key", False: "signed by NO known key", None: "its key is not known here"}
    fits = {True: "the log fits it", False: "the log does NOT fit it", None: "not compared with the log"}
    words = f"{signed[checkpoint['signed']]}, {fits[checkpoint['matches']]}"
    yield f"checkpoint: the one of position {checkpoint['position']} covers it: {words}"


def marks(
    session: Session,
    vm: Annotated[str | None, typer.Option(help="Of this VM (name or id).")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="From this position or time on.")] = None,
    to: Annotated[str | None, typer.Option(help="Up to this position or time.")] = None,
    buckets: Annotated[int | None, typer.Option(min=1, max=200, help="At most so many ranges (200).")] = None,
) -> None:
    """Count the events in ranges of positions: when something happened, and when something failed."""
    wanted = {
        "project": session.project_given,
        "vm": find(session, vm) if vm else None,
        "from": from_,
        "to": to,
        "buckets": buckets,
    }
    found = session.api.get(path("marks"), wanted)
    if session.output is Output.JSON:
        output.emit_json(found)
    else:
        output.emit(output.table(found["items"], MARKS))


def read(session: Session, wanted: Document, *, follow: bool = False) -> Iterator[Document]:
    """The matching events in the order of the log; with `follow` it never ends."""
    wait = 0.0
    while True:
        waiting = {"wait": f"{wait:.0f}s"} if wait else {}
        read = session.api.poll if wait else session.api.get  # a follower also waits while the platform is away
        items = read(path("events"), {**wanted, "limit": PAGE, **waiting}, wait=wait)["items"]
        yield from items
        if items:
            wanted = {**wanted, "after": items[-1]["position"]}
        if len(items) < PAGE:
            if not follow:
                return
            wait = POLL


def feed(
    session: Session,
    vm: Annotated[str | None, typer.Option(help="Of this VM (name or id).")] = None,
    after: Annotated[int | None, typer.Option(help="Begin after this position; without it, at the beginning.")] = None,
    now: Annotated[bool, typer.Option("--from-now", help="Only what happens from now on.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many events.")] = None,
) -> None:
    """Print the live feed. A lost connection is resumed exactly. With --output json: one CloudEvent per line.

    Each item names the previous one, so a gap is detected. A gap ends the feed with exit status 1.
    """
    target = path("feed")
    if vm:
        target = path("projects", session.project, "vms", find(session, vm), "feed")
    elif session.project_given:
        target = path("projects", session.project_given, "feed")
    start = {"after": after, "from": "now" if now else None}
    _print(session, subscribe(session, target, start), limit)


def subscribe(session: Session, target: str, start: Document) -> Iterator[Document]:
    """The items of a feed, each exactly once, also when connections are lost.

    Raises Unreachable when the first connection fails, CliError on a gap.
    """
    last: str | None = None  # where to resume
    before: str | None = None  # the position that the next item has to name as its `prev`
    failures = 0
    while True:
        try:
            for position, data in session.api.events(target, start if last is None else {}, last):
                last, failures = position or last, 0
                if not data:
                    before = position if before is None else before
                    continue
                item = json.loads(data)
                if before is not None and str(item["prev"]) != before:
                    raise CliError(f"the feed has a gap: position {position} follows {item['prev']}, not {before}")
                before = position
                yield item
        except Unreachable as error:
            if last is None and failures == TRIES:
                raise
            before = last  # the next connection begins there
            failures += 1
            pause = RETRY.after(failures)
            where = f"after position {last}" if last is not None else "from the start"
            note(f"{error}; resuming {where} in {pause:.1f} s")
            time.sleep(pause)


def _print(session: Session, items: Iterator[Document], limit: int | None) -> None:
    if session.output is Output.TABLE:
        output.emit(HEADINGS)
    for number, event in enumerate(items, start=1):
        if session.output is Output.JSON:
            output.emit_json(event, indent=None)
        else:
            output.emit(line(event))
        if number == limit:
            return


def line(event: Document) -> str:
    """An event, or a malformed message, in one line."""
    try:
        of = ".".join(subjects.parse_event(event["subject"]))
    except ValueError:
        of = event["subject"]
    try:
        time = output.moment(event.get("time", ""))
    except (ValueError, OverflowError):
        time = "-"
    cells = [f"{event['position']:<9}", f"{time:<24}", f"{event['type'] or '(malformed)':<32}", f"{of:<50}"]
    return plain(" ".join([*cells, event.get("actor", "")]), keep="").rstrip()
