"""When which server became the leader of the log, by the servers' own logs."""

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from runtime import subjects

_ELECTED = re.compile(
    rf"^\[[0-9]+\] (\S+ \S+) \[INF\] JetStream cluster new stream leader for '\w+ > {subjects.EVENTS}'$", re.MULTILINE
)


def elected(folder: Path) -> Iterator[float]:
    """The times (seconds since 1970) at which a server became the leader. `folder`: with the logs of all servers."""
    for log in folder.glob("nats-*.log"):
        for at in _ELECTED.findall(log.read_text(errors="replace")):
            yield datetime.strptime(at, "%Y/%m/%d %H:%M:%S.%f").astimezone().timestamp()


def first_after(folder: Path, since: float) -> float | None:
    """Seconds from a time (since 1970) to the next election; None if there was none."""
    later = [at - since for at in elected(folder) if at >= since]
    return min(later) if later else None
