"""`nebula parked`, `events` and `feed` against a gateway whose log holds messages of somebody hostile."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cli.client import client
from cli.main import main
from runtime import subjects
from runtime.bus.quick_client import QuickClient
from runtime.tasks.backoff import Backoff
from tests.gateway.platform import Platform
from tests.integrity.malformed import Stray, lay
from tests.waiting import eventually

#: Escapes, a bell, C1, a change of direction: none of it may reach a terminal.
EVIL = "\x1b[2J\x07\x9b31m\u202egnp.exe"
HOSTILE = ("\x1b", "\x07", "\x9b", "\u202e")

#: What the platform, which runs in this process as well, logs meanwhile.
LOGGED = re.compile(r"^\d{4}-\d\d-\d\d.\d\d:\d\d:.*\n", re.MULTILINE)

Run = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def nebula(api: Platform, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs `nebula …`: its exit status, and what it printed."""
    monkeypatch.setattr(client, "RETRY", Backoff(first=0.0, last=0.0))
    monkeypatch.setenv("NEBULA_URL", api.url)
    monkeypatch.setenv("NEBULA_HOME", str(tmp_path))
    for name in ("NEBULA_TOKEN", "NEBULA_PROJECT"):
        monkeypatch.delenv(name, raising=False)

    def ended(*arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        return int(ended.value.code or 0)

    async def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = await asyncio.to_thread(ended, *arguments)
        out, error = (LOGGED.sub("", text) for text in capsys.readouterr())
        assert not any(each in out + error for each in HOSTILE), arguments
        return status, out, error

    return run


async def laid(api: Platform, subject: str, stray: Stray) -> str:
    """The key under which a message on a subject is parked."""
    nc = QuickClient()
    await nc.connect(api.side.nats.url)
    position = await lay(nc, subject.encode(), stray)
    await nc.close()

    async def parked() -> bool:
        items = (await api.get("/v1/parked?limit=500"))["items"]
        return str(position) in [item["key"] for item in items]

    await eventually(parked, "parked")
    return str(position)


def headers(**said: str) -> bytes:
    lines = "".join(f"ce-{name}: {value}\r\n" for name, value in said.items())
    return f"NATS/1.0\r\n{lines}\r\n".encode()


async def test_a_parked_message_of_the_log(api: Platform, nebula: Run) -> None:
    block = headers(type=EVIL, actor=EVIL, time=EVIL, aggregateversion="1", source=EVIL)
    strange = await laid(api, f"nebula.events.default.vm.{EVIL.replace('.', '')}", Stray(block, EVIL.encode()))
    plain = await laid(api, "nebula.events.default.vm.hello", Stray(None, b"hi"))
    begin = str(int(strange) - 1)

    status, out, _ = await nebula("parked", "list")
    heading, *rows = out.splitlines()
    assert (status, heading.split()) == (0, ["SOURCE", "KEY", "STATUS", "SUBJECT", "PARKED", "ERROR"])
    assert [row.split()[:3] for row in rows] == [["log", strange, "open"], ["log", plain, "open"]]
    assert "\\x1b[2J\\x07" in rows[0]
    assert rows[1].endswith("the message has no headers")

    status, out, _ = await nebula("parked", "list", "--output", "json", "--source", "log")
    assert (status, [item["key"] for item in json.loads(out)["items"]]) == (0, [strange, plain])
    assert (await nebula("parked", "list", "--source", "reports", "-o", "json"))[1].split() == [
        "{",
        '"items":',
        "[]",
        "}",
    ]

    for form in ("json", "table"):
        status, out, _ = await nebula("parked", "show", "log", strange, "-o", form)
        assert status == 0
        assert "\\u202e" in out
    assert json.loads((await nebula("parked", "show", "log", strange, "-o", "json"))[1])["headers"]["ce-actor"] == EVIL

    # what reads the log goes on as well
    for command in (("events",), ("feed",)):
        status, out, error = await nebula(*command, "--after", begin, "--limit", "2")
        assert (status, error) == (0, "")
        assert [row.split()[0] for row in out.splitlines()[1:]] == [strange, plain]
        status, out, _ = await nebula(*command, "--after", begin, "--limit", "2", "-o", "json")
        assert [json.loads(row)["position"] for row in out.splitlines()] == [int(strange), int(plain)]

    status, out, error = await nebula("parked", "retry", "log", plain)
    assert (status, out) == (1, "")
    assert "parked_not_retried" in error
    status, _, error = await nebula("parked", "drop", "log", plain)
    assert status == 2
    assert "--reason" in error
    status, out, _ = await nebula("parked", "drop", "log", plain, "--reason", "seen")
    assert (status, out) == (0, f"log {plain}: dropped\n")
    status, out, error = await nebula("parked", "drop", "log", strange, "--reason", EVIL)
    assert (status, out, "reason: " in error) == (1, "", True)
    status, out, _ = await nebula("parked", "drop", "log", strange, "--reason", "seen", "-o", "json")
    assert (status, json.loads(out)["status"]) == (0, "dropped")
    assert json.loads((await nebula("parked", "list", "-o", "json"))[1]) == {"items": []}
    status, out, _ = await nebula("parked", "list", "--status", "dropped")
    assert status == 0
    assert {strange, plain} <= {row.split()[1] for row in out.splitlines()[1:]}


async def test_a_parked_report_is_put_back(api: Platform, nebula: Run) -> None:
    stored = await api.side.nc.jetstream().publish(subjects.report("host-1", "vm", "y"), b"{}")

    async def key() -> Any:
        items = (await api.get("/v1/parked?source=reports"))["items"]
        return items and items[-1]["key"]

    await eventually(key, "parked")
    assert await key() == str(stored.seq)
    status, out, _ = await nebula("parked", "retry", "reports", str(stored.seq), "-o", "json")
    assert (status, json.loads(out)["status"]) == (0, "retried")

    async def again() -> Any:
        return await key() not in ([], str(stored.seq)) and await key()

    again_ = await eventually(again, "judged again")
    assert await nebula("parked", "drop", "reports", again_, "--reason", "seen") == (
        0,
        f"reports {again_}: dropped\n",
        "",
    )


async def test_what_is_refused(api: Platform, nebula: Run) -> None:
    status, out, error = await nebula("parked", "show", "log", "999999")
    assert (status, out) == (1, "")
    assert "parked_not_found" in error
    assert (await nebula("parked", "show", "log", "../" + EVIL))[0] == 2  # no call has such a path
    assert (await nebula("parked", "list", "--status", EVIL))[0] in (1, 2)
    assert (await nebula("parked", "drop", EVIL, "1", "--reason", "x"))[0] == 1
    assert (await nebula("parked", "list", "--url", "http://127.0.0.1:1"))[0] == 3
