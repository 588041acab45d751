"""A worker: it asks for tests, runs them, and sends their reports."""

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import pytest
from _pytest.runner import runtestprotocol

from runtime.local import linux


def work(session: pytest.Session, connection: Connection, name: str, own: AbstractContextManager[None]) -> NoReturn:
    """Run the tests that are given to this process, a fork, and end it. `own`: what a worker has for all its tests."""
    status = 1
    try:
        linux.end_with_parent(signal.SIGKILL)
        apart(session.config, name)
        with own:
            Worker(session, connection).run()
        connection.send(("done",))
        status = 0
    except KeyboardInterrupt:
        pass
    except BaseException:
        connection.send(("error", traceback.format_exc()))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # what is to be done at the end of pytest is done by the process that has forked


def apart(config: pytest.Config, name: str) -> None:
    """Files that are the worker's own: of captured output, and the folder of `tmp_path`. It prints nothing."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    capture.stop_global_capturing()
    capture.start_global_capturing()
    capture.suspend_global_capture()
    factory: Any = config._tmp_path_factory  # type: ignore[attr-defined]
    factory._basetemp = factory.getbasetemp() / name
    factory._basetemp.mkdir(mode=0o700, exist_ok=True)
    terminal: Any = config.pluginmanager.getplugin("terminalreporter")
    terminal._tw._file = open(os.devnull, "w")  # noqa: SIM115  (until the process ends)


class Worker:
    def __init__(self, session: pytest.Session, connection: Connection) -> None:
        self._session = session
        self._connection = connection

    def run(self) -> None:
        self._session.config.pluginmanager.register(self)
        given = self._given()
        number = next(given, None)
        try:
            while number is not None:
                following = next(given, None)
                test, then = (self._session.items[each] if each is not None else None for each in (number, following))
                assert test is not None
                test.ihook.pytest_runtest_protocol(item=test, nextitem=then)  # what both need stays
                self._connection.send(("ran", number))
                number = following
        finally:
            self._session._setupstate.teardown_exact(None)

    def _given(self) -> Iterator[int]:
        """The numbers of tests, which are asked for as late as possible."""
        while True:
            self._connection.send(("next",))
            numbers: list[int] = self._connection.recv()
            if not numbers:
                return
            yield from numbers

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        self._connection.send(("begins", item.nodeid, item.location))
        for report in runtestprotocol(item, log=False, nextitem=nextitem):
            data = item.config.hook.pytest_report_to_serializable(config=item.config, report=report)
            self._connection.send(("report", data))
        self._connection.send(("finished", item.nodeid, item.location))
        return True

    def pytest_warning_recorded(
        self, warning_message: warnings.WarningMessage, when: Any, nodeid: str, location: Any
    ) -> None:
        said = (str(warning_message.message), warning_message.filename, warning_message.lineno)
        self._connection.send(("warning", said, when, nodeid, location))
