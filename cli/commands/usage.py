"""`nebula vm usage` and `nebula node usage`: the CPU, memory, disk and network that VMs and hosts used lately."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated

import typer

from cli.client import output
from cli.client.client import Document, path
from cli.client.command import query
from cli.client.session import Output, Session, note
from cli.commands.vm import Name, find

#: Characters of a sparkline from the lowest to the highest, for an unknown step, and its length.
BARS, UNKNOWN, LENGTH = "▁▂▃▄▅▆▇█", "·", 40
#: Steps that are asked for: each character is the average of some.
POINTS = 120

Since = Annotated[
    str | None,
    typer.Option(metavar="DURATION", help="How far it goes back, such as 6h, 90m or 300s; at most 24h (1h)."),
]
NodeId = Annotated[str, typer.Argument(metavar="NODE", help="Id.")]

Numbers = Sequence[float | None]


def register(vms: typer.Typer, nodes: typer.Typer) -> None:
    query(vms, "usage")(of_vm)
    query(nodes, "usage")(of_node)


def of_vm(session: Session, vm: Name, since: Since = None) -> None:
    """Show what a VM used lately: CPU, memory, disk and network."""
    show(session, path("projects", session.project, "vms", find(session, vm), "usage"), since)


def of_node(session: Session, node: NodeId, since: Since = None) -> None:
    """Show what a node used lately: CPU, memory, disk and network of the host."""
    show(session, path("nodes", node, "usage"), since)


def show(session: Session, target: str, since: str | None) -> None:
    found = session.api.get(target, {"since": since, "points": str(POINTS)} if since else {"points": str(POINTS)})
    if session.output is Output.JSON:
        output.emit_json(found)
        return
    points, size = found["points"], found["size"]
    rows = [
        row("cpu", [each["cpu"] for each in points], cores, size["cpus"]),
        row("memory", [each["memory_bytes"] for each in points], output_size, size["memory_bytes"]),
        row("disk", [each["disk_bytes"] for each in points], output_size, size["disk_bytes"]),
        row("disk read", [each["disk_read"] for each in points], rate),
        row("disk written", [each["disk_written"] for each in points], rate),
        row("network in", [each["net_in"] for each in points], rate),
        row("network out", [each["net_out"] for each in points], rate),
    ]
    columns: output.Columns = {
        **{name: name.lower() for name in ("SERIES", "NOW", "AVERAGE", "MAXIMUM", "OF")},
        f"{output.moment(found['from'])[:16]} TO {output.moment(found['to'])[11:16]}": "bars",
    }
    output.emit(output.table(rows, columns))
    if all(each["cpu"] is None and each["memory_bytes"] is None for each in points):
        note("nothing is known of this time: it did not run, or its node took no samples")


def row(name: str, numbers: Numbers, text: Callable[[float], str], size: float | None = None) -> Document:
    known = [number for number in numbers if number is not None]
    return {
        "series": name,
        "now": text(numbers[-1]) if numbers and numbers[-1] is not None else None,
        "average": text(sum(known) / len(known)) if known else None,
        "maximum": text(max(known)) if known else None,
        "of": text(size) if size is not None else None,
        "bars": bars(numbers, size),
    }


def bars(numbers: Numbers, size: float | None = None) -> str:
    """A sparkline from zero to `size`, or to the maximum."""
    count = min(LENGTH, len(numbers))
    edges = [len(numbers) * each // count for each in range(count + 1)] if count else []
    parts = [[number for number in numbers[begin:end] if number is not None] for begin, end in pairwise(edges)]
    averages = [sum(part) / len(part) if part else None for part in parts]
    top = size or max((each for each in averages if each is not None), default=0.0)
    return "".join(UNKNOWN if each is None else bar(each, top) for each in averages)


def bar(value: float, top: float) -> str:
    return BARS[min(len(BARS) - 1, int(len(BARS) * value / top))] if top > 0 else BARS[0]


def cores(value: float) -> str:
    return f"{value:.2f}"


def output_size(value: float) -> str:
    return output.size(round(value)) or "0 B"


def rate(value: float) -> str:
    return f"{output_size(value)}/s"
