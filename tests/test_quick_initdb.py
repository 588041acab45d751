"""A copied cluster is as a new one, with a password of its own."""

from pathlib import Path

import psycopg
import pytest

from runtime.local.child import find_program
from runtime.local.servers import start_postgres
from tests.quick_initdb import SCRIPT

SHOWN = ("data_checksums", "server_encoding", "lc_collate", "lc_ctype", "password_encryption", "server_version")


async def seen(folder: Path, password: str | None = None) -> tuple[list[object], str]:
    """What the settings and roles of a new cluster are, and its password. `password`: the one to use instead."""
    folder.mkdir()
    server = await start_postgres(folder, durable=False)
    try:
        dsn = server.dsn if password is None else server.dsn.replace(server.password, password)
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            found: list[object] = [
                (await (await connection.execute(f"SHOW {name}".encode())).fetchone()) for name in SHOWN
            ]
            roles = "SELECT rolname, rolsuper, left(rolpassword, 14) FROM pg_authid WHERE rolcanlogin ORDER BY 1"
            found += await (await connection.execute(roles)).fetchall()
            return found, server.password
    finally:
        await server.stop()


async def test_a_copy_is_as_a_new_one_and_has_its_own_password(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = find_program("initdb")
    assert program is not None and "originals" in program.read_text() and "#!/bin/bash" in SCRIPT
    first, password = await seen(open_folder / "first")
    second, other = await seen(open_folder / "second")
    assert password != other
    with pytest.raises(psycopg.OperationalError, match="password"):
        await seen(open_folder / "third", password)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    real, _ = await seen(open_folder / "real")
    assert first == second == real
