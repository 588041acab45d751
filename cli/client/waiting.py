"""Waiting for an operation or a VM, with the progress shown meanwhile."""

import sys
import time
from types import TracebackType
from typing import Any

from cli.client.client import Document, path
from cli.client.errors import CliError, Interrupted, Refused, TimedOut
from cli.client.output import duration
from cli.client.session import Session
from runtime.tasks.gauge import share
from runtime.text.plain import plain

#: Seconds of one long poll: the state that is shown is at most this old.
POLL = 2.0


class Progress:
    """The present state on standard error: a spinner on a terminal, else one line for each change."""

    def __init__(self, what: str, margin: str = "") -> None:
        self._what = margin + plain(what, keep="")
        self._began = time.monotonic()
        self._shown = ""
        self._spinner: Any = None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.text import Text

            self._spinner = Console(stderr=True).status(Text(self._what))
            self._spinner.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._spinner is not None:
            self._spinner.stop()

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    def show(self, text: str) -> None:
        text = plain(text, keep="")
        if self._spinner is not None:
            from rich.text import Text

            self._spinner.update(Text(f"{self._what}: {text} ({duration(self.elapsed)})"))
        elif text != self._shown:
            sys.stderr.write(f"{self._what}: {text} ({duration(self.elapsed)})\n")
            sys.stderr.flush()
        self._shown = text


def operation(session: Session, op: Document) -> Document:
    """Wait until the operation has succeeded. Returns its last state.

    Raises Refused if it failed, TimedOut if its deadline or our time-out has passed, Interrupted on Ctrl-C: then the
    operation continues on the platform.
    """
    with Progress(f"{op['verb']} {op['kind']} {short(op['resource'])}", session.margin) as progress:
        try:
            while op["status"] in ("accepted", "running"):
                progress.show(_state(session, op))
                wait = _patience(session, progress, f"operation {op['id']} is {op['status']}")
                query = {"wait": f"{wait:.1f}s"}
                op = session.api.poll(
                    path("operations", op["id"]), query, wait=wait, patience=remaining(session, progress)
                )
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; operation {op['id']} continues on the platform") from None
        progress.show(op["status"])
    problem = {"detail": f"{op['verb']} {op['status']}", **(op.get("problem") or {})}
    match op["status"]:
        case "succeeded":
            return op
        case "timed_out":
            raise TimedOut(str(Refused(problem)))
        case _:
            raise Refused(problem)


def vm(session: Session, project: str, vm_id: str, goal: str) -> Document:
    """Wait until the VM is running, ready, paused, suspended, stopped or deleted; its last state.

    Raises Refused if the VM cannot reach the goal without another command, TimedOut as above.
    """
    target = path("projects", project, "vms", vm_id)
    position = None
    with Progress(f"vm {short(vm_id)}", session.margin) as progress:
        while True:
            try:
                state = session.api.poll(target, {"min_position": position}, patience=remaining(session, progress))
            except Refused as refusal:
                if goal == "deleted" and refusal.status in (404, 410):
                    return {"id": vm_id, "project": project, "phase": "deleted"}
                raise
            progress.show(describe(state))
            if _reached(state, goal):
                return state
            if goal == "ready" and (silent := _silent(state)):
                raise Refused({**silent, "detail": f"VM {state['name']} is running, and {silent['detail']}"})
            if _hopeless(state, goal):
                failure = state.get("failure") or {}
                raise Refused({"detail": f"VM {state['name']} is {state['phase']}", **failure})
            wait = _patience(session, progress, f"VM {state['name']} is {describe(state)}, not {goal}")
            seen = {"vm": vm_id, "after": state["position"], "limit": 1, "wait": f"{wait:.1f}s"}
            news = session.api.poll(path("events"), seen, wait=wait, patience=remaining(session, progress))["items"]
            position = news[-1]["position"] if news else None


def not_chosen(considered: list[Document]) -> list[str]:
    """Each node that placement considered and did not choose, with the reason."""
    named = [node for node in considered if node.get("reason")]
    more = [f" (and {node['more']} more)" if node.get("more") else "" for node in named]
    return [f"{node['node']} {node['reason']}{rest}" for node, rest in zip(named, more, strict=True)]


def considered(nodes: list[Document]) -> list[str]:
    """All nodes that placement considered: the chosen one, and why not the others."""
    chosen = [f"{node['node']} was chosen" for node in nodes if not node.get("reason")]
    return [*chosen, *not_chosen(nodes)]


def describe(state: Document) -> str:
    """The state of a VM in a few words."""
    words = [str(state["phase"])]
    if state.get("preparing"):
        words.append(f"preparing {state['preparing']}")
    if state["phase"] == "unschedulable":
        words += not_chosen(state.get("considered") or [])
    if state["phase"] == "running":
        words += state.get("addresses") or ["no address yet"]
        words.append("ready" if state.get("ready") else "guest not ready yet")
    return ", ".join(words)


def short(id_: str) -> str:
    """An id, short enough for people: the beginning of a UUID."""
    return id_[:8] if len(id_) == 36 else id_


def _reached(state: Document, goal: str) -> bool:
    phase = state["phase"]
    return bool(state.get("ready")) and phase == "running" if goal == "ready" else bool(phase == goal)


def _silent(state: Document) -> Document | None:
    """Why a running VM can never report that it is ready, if that is known."""
    if state.get("pending") or state["phase"] != "running":
        return None
    return next((each for each in state.get("warnings") or [] if each["code"] == "guest_cannot_say_ready"), None)


def _hopeless(state: Document, goal: str) -> bool:
    if state.get("pending") or state["phase"] in ("requested", "unschedulable", "scheduled", "lost"):
        return False
    dead_ends: dict[str, tuple[str, ...]] = {
        "running": ("paused", "suspended", "stopped", "failed", "deleted"),
        "ready": ("paused", "suspended", "stopped", "failed", "deleted"),
        "paused": ("suspended", "stopped", "failed", "deleted"),
        "suspended": ("paused", "stopped", "failed", "deleted"),
        "stopped": ("paused", "suspended", "failed", "deleted"),
        "deleted": (),
    }
    return state["phase"] in dead_ends[goal]


def _state(session: Session, op: Document) -> str:
    """The phase of a VM; for other resources only that the operation is running."""
    if op.get("progress"):
        return f"{op['status']}, {share(op['progress']['bytes_done'], op['progress']['bytes_total'])}"
    if op["kind"] != "vm":
        return str(op["status"])
    try:
        return describe(session.api.get(path("projects", op["project"], "vms", op["resource"])))
    except CliError:
        return str(op["status"])


def _patience(session: Session, progress: Progress, state: str) -> float:
    """Seconds until the next look. Raises TimedOut if no time is left."""
    seconds = remaining(session, progress)
    if seconds <= 0:
        raise TimedOut(f"{plain(state, keep='')} after {duration(progress.elapsed)}; it may still reach that state")
    return min(POLL, seconds)


def remaining(session: Session, progress: Progress) -> float:
    """The seconds that are left of the time-out."""
    return session.timeout - progress.elapsed
