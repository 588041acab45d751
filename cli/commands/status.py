"""`nebula status`: the state of each process, manager, lease and node."""

import typer

from cli.client import output
from cli.client.client import Document, path
from cli.client.command import query
from cli.client.output import Row, age
from cli.client.session import Output, Session


def register(app: typer.Typer, panel: str) -> None:
    @query(app, "status", panel)
    def status(session: Session) -> None:
        """Show for each process and manager whether it is alive, its lag, its last error and since when it fails."""
        show(session, session.api.get(path("status")))


def where(row: Row) -> object:
    """The process, in the form HOST:PID."""
    process = row["process"]
    return f"{process['host']}:{process['pid']}" if process else None


def alive(row: Row) -> object:
    return "alive" if row["alive"] else "silent"


def works(row: Row) -> object:
    """For a manager or a lease: `nowhere`, if no process has it."""
    return "nowhere" if row["process"] is None else alive(row)


def past_lag(row: Row) -> object:
    """Of projections: how many events the past is behind, or that it cannot be kept."""
    past = row.get("past")
    if past is None:
        return None
    return "failing" if past["failing_since"] else past["lag"]


ROLES: output.Columns = {
    "ROLE": "role",
    "PROCESS": where,
    "VERSION": "version",
    "STATE": alive,
    "SEEN": age("last_seen"),
    "POSITION": "position",
    "LAG": "lag",
    "PAST LAG": past_lag,
    "FAILING FOR": age("failing_since"),
    "LAST ERROR": "last_error",
}
MANAGERS: output.Columns = {
    "MANAGER": "name",
    "PROCESS": where,
    "STATE": works,
    "LAST RUN": age("last_run"),
    "LAST SUCCESS": age("last_success"),
    "FAILING FOR": age("failing_since"),
    "LAST ERROR": "last_error",
}
LEASES: output.Columns = {"LEASE": "name", "PROCESS": where, "STATE": works}
NODES: output.Columns = {
    "NODE": "node",
    "STATE": alive,
    "SEEN": age("last_seen"),
    "STATUS": "state",
    "CLOCK": "clock_warning",
    "UNREADABLE": "malformed_documents",
}


def show(session: Session, found: Document) -> None:
    """Print tables, with only the nodes that have a problem; or all of it as JSON, for programs."""
    if session.output is Output.JSON:
        output.emit_json(found)
        return
    tables = [(found["roles"], ROLES), (found["managers"], MANAGERS), (found["leases"], LEASES)]
    failing = [each for each in found["nodes"] if has_problem(each)]
    if failing:
        tables.append((failing, NODES))
    for rows, columns in tables:
        output.emit(output.table(rows, columns) + "\n")
    parked = found["parked"]
    output.line(f"nodes   {sum(each['alive'] for each in found['nodes'])} of {len(found['nodes'])} alive")
    output.line(f"parked  {parked['open']} open, {parked['total']} in all, {parked['more']} more only counted")
    output.line(f"log     ends at position {output.cell(found['position'])}")


def has_problem(node: Row) -> bool:
    return not node["alive"] or bool(node["clock_warning"] or node["malformed_documents"]) or node["state"] == "lost"
