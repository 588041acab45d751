"""Run a role, and count in which steps it uses CPU time: `python -m bench.sampling ROLE FILE`.

A timer of the process's CPU time interrupts it each millisecond. The innermost function on the stack that belongs to a
step counts. SIGUSR2 writes the counts to the file and begins anew.
"""

import json
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from cli.local.role import serve
from runtime.files import files

#: Seconds of CPU time between two samples.
INTERVAL = 0.001
OTHER = "event loop, sockets, the rest"

#: The steps of each role, by the functions (`__qualname__`) in which they are.
STEPS: Mapping[str, Mapping[str, str]] = {
    "gateway": {
        "Connection.data_received": "HTTP: read the request",
        "_Call.__init__": "identify the caller",
        "_Call.admit": "identify the caller",
        "Router.__call__": "route, guard, parameters",
        "parse": "read the body, derive ids",
        "read": "read the body, derive ids",
        "ask": "ask handlers (nats-py)",
        "Requested.payload": "encode the command",
        "TypeAdapter.validate_json": "read the reply",
        "shown": "show operation and resource",
        "Response.__init__": "HTTP: answer",
        "Response.__call__": "HTTP: answer",
        "Client._read_loop": "receive from the bus (nats-py)",
        "Client._flusher": "send to the bus (nats-py)",
        "listen": "hear the position of the read models",
    },
    "handlers": {
        "Client._read_loop": "receive from the bus (nats-py)",
        "Subscription._wait_for_msgs": "receive from the bus (nats-py)",
        "Client._flusher": "send to the bus (nats-py)",
        "CommandLoop._answer.<locals>.work": "read the command",
        "CommandLoop._handle": "route, context",
        "Permissions.check": "check the permission",
        "Fingerprints.of": "fingerprint",
        "CommandLoop._prepare": "look up what is named, seal user-data",
        "CommandLoop._decide_and_append": "decide and evolve",
        "Fences.confirm": "check the fences",
        "EventStore.append": "headers, digest, MAC",
        "GroupCommit.append": "append, in groups",
        "GroupCommit._store": "append, in groups",
        "CommandLoop._reply": "record of the operation, reply",
        "accepted": "record of the operation, reply",
        "Responder.answer": "record of the operation, reply",
        "World._receive": "read the log, behind the command",
        "World._fold": "fold the log, behind the command",
        "Driver._rounds": "managers, behind the command",
    },
}


class Sampler:
    """Counts the samples of a process by step."""

    def __init__(self, steps: Mapping[str, str], file: Path) -> None:
        self._steps = steps
        self._file = file
        self._counts: Counter[str] = Counter()

    def start(self) -> None:
        signal.signal(signal.SIGPROF, self._sample)
        signal.signal(signal.SIGUSR2, self._write)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)

    def _sample(self, _: int, frame: FrameType | None) -> None:
        self._counts[step_of(self._steps, frame)] += 1

    def _write(self, _: int, frame: FrameType | None) -> None:
        counts, self._counts = self._counts, Counter()
        files.put(self._file, json.dumps(counts).encode(), durable=False)


def step_of(steps: Mapping[str, str], frame: FrameType | None) -> str:
    """The step of the innermost function that belongs to one."""
    while frame is not None:
        step = steps.get(frame.f_code.co_qualname)
        if step is not None:
            return step
        frame = frame.f_back
    return OTHER


if __name__ == "__main__":
    Sampler(STEPS[sys.argv[1]], Path(sys.argv[2])).start()
    serve(sys.argv[1])
