"""What Postgres refuses for good is told from what passes by the code of the error, whatever language it speaks."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from psycopg import AsyncConnection, Error, OperationalError

from projections import database, refusals
from runtime.local.servers import Postgres, PostgresRole, start_postgres
from runtime.tasks.patience import CannotRun
from tests.waiting import eventually

#: Requests for encryption, which are answered before a session begins.
SSL, GSS = (80877103).to_bytes(4, "big"), (80877104).to_bytes(4, "big")


def refusal(code: str, words: str) -> bytes:
    """An ErrorResponse, as Postgres writes it."""
    fields = {"S": "SCHWERWIEGEND", "V": "FATAL", "C": code, "M": words, "F": "auth.c", "L": "326", "R": "auth_failed"}
    body = b"".join(name.encode() + value.encode() + b"\0" for name, value in fields.items()) + b"\0"
    return b"E" + (len(body) + 4).to_bytes(4, "big") + body


@asynccontextmanager
async def refusing(code: str, words: str) -> AsyncIterator[str]:
    """A server that lets nobody in; its DSN."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(4), "big")
                asked = await reader.readexactly(length - 4)
                if asked[:4] not in (SSL, GSS):
                    break
                writer.write(b"N")
            writer.write(refusal(code, words))
            await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"postgresql://nebula:geheim@127.0.0.1:{port}/nebula"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("28P01", "Passwort-Authentifizierung für Benutzer »nebula« fehlgeschlagen"),
        ("28000", "kein pg_hba.conf-Eintrag für Host »127.0.0.1«, Benutzer »nebula«, keine Verschlüsselung"),
        ("28000", 'ロール"nebula"はログインが許可されません'),
        ("3D000", "la base de données « nebula » n'existe pas"),
        ("42501", "keine Berechtigung für Datenbank nebula"),
    ],
)
async def test_a_refusal_that_lasts_ends_the_role_in_any_language(code: str, words: str) -> None:
    async with refusing(code, words) as dsn:
        with pytest.raises(CannotRun, match="Postgres at"):
            await database.connect(dsn, "test")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("57P03", "das Datenbanksystem startet"),
        ("53300", "tut mir leid, schon zu viele Verbindungen"),
        ("57P03", 'password authentication failed, role "x" does not exist: the words count for nothing'),
        ("XX000", "FATAL:  28P01"),
    ],
)
async def test_what_passes_is_waited_for_whatever_its_words_are(code: str, words: str) -> None:
    async with refusing(code, words) as dsn:
        with pytest.raises(OperationalError):
            await database.connect(dsn, "test")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda dsn: dsn, None),
        (lambda dsn: dsn.replace(":", ":x", 2).replace(":x//", "://", 1), "28P01"),
        (lambda dsn: f"{dsn.partition('://')[0]}://nebula_gateway@{dsn.rpartition('@')[2]}", refusals.UNKNOWN),
        (lambda dsn: dsn.rpartition("/")[0] + "/nowhere", "3D000"),
        (lambda dsn: dsn.rpartition("/")[0] + "/template1", "42501"),
        (lambda dsn: "postgresql://nebula@127.0.0.1:1/nebula", None),
    ],
)
async def test_a_real_server_says_the_code(postgres: Postgres, change: Callable[[str], str], code: str | None) -> None:
    dsn = change(postgres.dsn_of("nebula", PostgresRole.GATEWAY))
    assert await asyncio.to_thread(refusals.code_of, database.conninfo(dsn, "nebula", "test")) == code


@pytest.fixture(scope="module")
async def german(servers_home: Path) -> AsyncIterator[Postgres]:
    """A server of its own that speaks German, where the packages for that are installed."""
    home = servers_home / "german"
    folder = home / "locales"
    folder.mkdir(parents=True)
    made = ["localedef", "--no-archive", "-i", "de_DE", "-f", "UTF-8", str(folder / "de_DE.UTF-8")]
    texts = list(Path("/usr/share/locale/de/LC_MESSAGES").glob("postgres-*.mo"))
    if not shutil.which("localedef") or not texts or not Path("/usr/share/i18n/locales/de_DE").exists():
        pytest.skip("needs the packages locales and postgresql, with their translations")
    await (await asyncio.create_subprocess_exec(*made)).wait()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LOCPATH", str(folder))
        server = await start_postgres(home, durable=False)
    try:
        async with await AsyncConnection.connect(server.dsn, autocommit=True) as session:
            await session.execute("ALTER SYSTEM SET lc_messages = 'de_DE.UTF-8'")
            await session.execute("SELECT pg_reload_conf()")
        yield server
    finally:
        await server.stop()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda dsn: dsn.replace(":", ":x", 2).replace(":x//", "://", 1), "fehlgeschlagen"),
        (lambda dsn: dsn.rpartition("/")[0] + "/nowhere", "existiert nicht"),
        (lambda dsn: dsn.rpartition("/")[0] + "/template1", "keine Berechtigung"),
    ],
)
async def test_a_server_of_another_language_is_understood(
    german: Postgres, change: Callable[[str], str], words: str
) -> None:
    async def spoken() -> bool:
        async with await AsyncConnection.connect(german.dsn) as session:
            row = await (await session.execute("SHOW lc_messages")).fetchone()
        return row == ("de_DE.UTF-8",)

    await eventually(spoken, "it speaks German")
    with pytest.raises(CannotRun, match=words):
        await database.connect(change(german.dsn_of("nebula", PostgresRole.GATEWAY)), "test")


async def test_a_session_that_such_a_server_ends_is_lost_and_no_bug(german: Postgres) -> None:
    conn = await database.connect(german.dsn, "test")
    async with await AsyncConnection.connect(german.dsn, autocommit=True) as session:
        await session.execute("SELECT pg_terminate_backend(%s)", [conn.info.backend_pid])
    with pytest.raises(Error) as ended:
        await conn.execute("SELECT 1")
    assert database.lost(ended.value)
    await conn.close()
