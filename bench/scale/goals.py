"""The goals of the figures of a large cloud, and which of them a run has reached."""

import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Goal(NamedTuple):
    """A figure of a row that should be `at_most` or at least a limit. `path`: its names within the row."""

    text: str
    row: str
    path: tuple[str, ...]
    limit: float
    at_most: bool


def most(text: str, row: str, figure: str, limit: float) -> Goal:
    return Goal(text, row, tuple(figure.split(".")), limit, at_most=True)


def least(text: str, row: str, figure: str, limit: float) -> Goal:
    return Goal(text, row, tuple(figure.split(".")), limit, at_most=False)


GOALS = (
    most("handlers: start from a snapshot until a command is answered, s", "handlers", "start_of_snapshot_seconds", 3),
    most("handlers: memory of the process, KiB a VM", "handlers", "kib_per_vm", 4),
    most("handlers: CPU at rest, % of a core", "handlers", "cpu_at_rest_percent", 1),
    least("wanted documents written, per second", "handlers", "documents_per_second", 2000),
    least("read models from nothing, events/s", "models", "events_per_second", 15_000),
    least("read models from nothing ÷ raw ordered consumer", "models", "ratio", 0.4),
    most("lists of 100 VMs, p99 of the slowest, ms", "lists", "vms_p99_ms", 10),
    most("lists of 100 VMs ÷ bare SQL", "lists", "vms_ratio", 3),
    most("lists of 100 nodes, p99, ms", "lists", "nodes_p99_ms", 10),
    most("lists of 100 nodes ÷ bare SQL", "lists", "nodes_ratio", 3),
    least("verify log, events/s", "verify", "events_per_second", 30_000),
    most("verify views ÷ rebuild", "models", "verify_views_ratio", 1.2),
    least("creates accepted ÷ raw durable publishes", "commands", "ratio", 0.6),
    least("the same with 2 gateways and 2 handlers", "commands-2", "ratio", 0.6),
    most("one create, p50, ms", "commands", "p50_ms_at_1_in_flight", 2),
    most("create → running seen, p50, ms", "stages", "create.ms_p50", 20),
    most("stop → seen, p50, ms", "stages", "stop.ms_p50", 15),
    most("start → seen, p50, ms", "stages", "start.ms_p50", 15),
    most("stop → seen, slowest, ms", "stages", "stop.ms_max", 250),
    most("start → seen, slowest, ms", "stages", "start.ms_max", 250),
    most("in the log → seen in any burst, p99, ms", "bursts", "worst_read_model_p99", 250),
    least("3,000 creates: running per second", "run", "running_per_second", 330),
    most("3,000 creates: CPU of a create on full nodes ÷ on empty ones", "run", "growth", 1.1),
    most("rounds in one log: growth of the CPU of a VM from one to the next", "rounds", "slope_to_floor", 0.02),
    most("rounds in one log: CPU of a VM in the last one ÷ in the first", "rounds", "growth", 1.1),
    most("the same, of the role that grows most", "rounds", "worst_growth", 1.1),
    most("idle, all VMs deleted: cores", "rounds", "cores_at_rest", 0.04),
    most("control plane at rest, all roles, MiB (PSS)", "rest", "roles_mib", 250),
)


class Outcome(NamedTuple):
    """What became of a goal. `value`: None if it was not measured."""

    goal: Goal
    value: float | None

    @property
    def reached(self) -> bool | None:
        """None if the figure was not measured."""
        if self.value is None:
            return None
        compare: Callable[[float, float], bool] = operator.le if self.goal.at_most else operator.ge
        return compare(self.value, self.goal.limit)

    @property
    def word(self) -> str:
        return {None: "not measured", True: "reached", False: "not reached"}[self.reached]

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "figure": f"{self.goal.row}.{'.'.join(self.goal.path)}",
            "value": self.value,
            "goal": f"{'≤' if self.goal.at_most else '≥'} {self.goal.limit:g}",
            "outcome": self.word,
        }


def outcomes(rows: Mapping[str, Mapping[str, Any]]) -> list[Outcome]:
    """What became of each goal, given the figures of the rows that were measured."""
    return [Outcome(goal, figure(rows, goal)) for goal in GOALS]


def figure(rows: Mapping[str, Mapping[str, Any]], goal: Goal) -> float | None:
    found: Any = rows.get(goal.row, {})
    for name in goal.path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
