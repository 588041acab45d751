"""The process that forks: it gives tests to its workers, and reports what they say as if it had run the tests."""

import os
import signal
import warnings
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from types import SimpleNamespace
from typing import Any

import pytest

from tests.parallel.files import Files
from tests.parallel.worker import work

#: Seconds for a worker that is interrupted to take down what it has.
PATIENCE = 60.0


def run(
    session: pytest.Session, workers: int, long: Collection[str], own: Callable[[], AbstractContextManager[None]]
) -> None:
    """Run the tests of a session. `long`: the files that take long; `own`: makes what each worker has for all its
    tests. Raises as pytest does, if not all tests are to be run.
    """
    Run(session, long, own).run(workers)
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    if session.shouldstop:
        raise session.Interrupted(session.shouldstop)


@dataclass
class Child:
    """A worker. `given`: the tests that it has not run yet. `current`: the test that it runs."""

    number: int
    pid: int
    connection: Connection
    given: list[int] = field(default_factory=list)
    current: tuple[str, Any] | None = None
    done: bool = False

    @property
    def name(self) -> str:
        return f"gw{self.number}"


class Run:
    def __init__(
        self, session: pytest.Session, long: Collection[str], own: Callable[[], AbstractContextManager[None]]
    ) -> None:
        tests: dict[str, list[int]] = {}
        for number, item in enumerate(session.items):
            tests.setdefault(file_of(item), []).append(number)
        self._files = Files(tests, long)
        self._session = session
        self._config = session.config
        self._own = own
        self._children: dict[int, Child] = {}
        self._started = 0

    def run(self, workers: int) -> None:
        terminal: Any = self._config.pluginmanager.getplugin("terminalreporter")
        terminal.showfspath = False  # the tests of several files come at the same time
        try:
            for _ in range(min(workers, len(self._files))):
                self._fork()
            while self._children:
                for connection in wait([child.connection for child in self._children.values()]):
                    self._hear(next(child for child in self._children.values() if child.connection is connection))
                if self._session.shouldfail or self._session.shouldstop:
                    return
        finally:
            self._end()

    def _fork(self) -> None:
        ours, theirs = Pipe()
        number = self._started
        self._started += 1
        pid = os.fork()
        if pid == 0:
            ours.close()
            for other in self._children.values():
                other.connection.close()
            work(self._session, theirs, f"gw{number}", self._own())
        theirs.close()
        self._children[number] = Child(number, pid, ours)

    def _hear(self, child: Child) -> None:
        try:
            what, *said = child.connection.recv()
        except (EOFError, ConnectionError):
            self._ended(child)
            return
        hook = self._config.hook
        match what:
            case "next":
                numbers = self._files.take(child.number)
                child.given += numbers
                child.connection.send(numbers)
            case "begins":
                child.current = (said[0], said[1])
                hook.pytest_runtest_logstart(nodeid=said[0], location=said[1])
            case "report":
                self._report(child, hook.pytest_report_from_serializable(config=self._config, data=said[0]))
            case "finished":
                hook.pytest_runtest_logfinish(nodeid=said[0], location=said[1])
            case "ran":
                child.given.remove(said[0])
                child.current = None
            case "warning":
                (text, file, line), when, nodeid, location = said
                message = warnings.WarningMessage(UserWarning(text), UserWarning, file, line)
                hook.pytest_warning_recorded.call_historic(
                    kwargs={"warning_message": message, "when": when, "nodeid": nodeid, "location": location}
                )
            case "done":
                child.done = True
            case "error":
                raise RuntimeError(f"the worker {child.name} failed:\n{said[0]}")

    def _report(self, child: Child, report: Any) -> None:
        gateway = SimpleNamespace(id=child.name)  # as pytest knows them from pytest-xdist
        report.node = SimpleNamespace(gateway=gateway, _workerinfocache=f"[{child.name}]")
        self._config.hook.pytest_runtest_logreport(report=report)

    def _ended(self, child: Child) -> None:
        """Another worker takes its place, if it did not end by itself. The test that it ran has failed."""
        del self._children[child.number]
        child.connection.close()
        _, status = os.waitpid(child.pid, 0)
        self._files.ended(child.number)
        if child.done and not child.given:
            return
        if child.current is None:
            raise RuntimeError(f"the worker {child.name} ended between two tests")
        nodeid, location = child.current
        why = f"the worker {child.name} ended, with status {os.waitstatus_to_exitcode(status)}"
        self._report(child, pytest.TestReport(nodeid, location, {}, "failed", why, "call"))
        for number in reversed(child.given[1:]):
            self._files.put_back(file_of(self._session.items[number]), [number])
        if len(self._files):
            self._fork()

    def _end(self) -> None:
        """Interrupt the workers that are left, and wait for them."""
        for child in self._children.values():
            os.kill(child.pid, signal.SIGINT)
        for child in self._children.values():
            while child.connection.poll(PATIENCE):
                try:
                    child.connection.recv()
                except (EOFError, ConnectionError):
                    break
            else:
                os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)


def file_of(item: pytest.Item) -> str:
    """Of a test, from the root of the project."""
    return item.nodeid.partition("::")[0]
