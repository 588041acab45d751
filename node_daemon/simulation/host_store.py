"""The storage of simulated hosts. Their domains, disks and images survive the daemon's process, as on a real host."""

import sqlite3
from pathlib import Path

DDL = """
CREATE TABLE IF NOT EXISTS things (
    node text NOT NULL,
    kind text NOT NULL,
    id   text NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (node, kind, id)
) WITHOUT ROWID
"""


class HostStore:
    """Texts by node, kind and id in one SQLite file; without a file, in memory only.

    Stored texts survive SIGKILL, but not always a power failure.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._db = sqlite3.connect(file or ":memory:", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(DDL)

    def all(self, node: str, kind: str) -> dict[str, str]:
        rows = self._db.execute("SELECT id, body FROM things WHERE node = ? AND kind = ?", (node, kind))
        return dict(rows.fetchall())

    def put(self, node: str, kind: str, id_: str, body: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO things VALUES (?, ?, ?, ?)", (node, kind, id_, body))

    def remove(self, node: str, kind: str, id_: str) -> None:
        self._db.execute("DELETE FROM things WHERE node = ? AND kind = ? AND id = ?", (node, kind, id_))

    def close(self) -> None:
        self._db.close()
