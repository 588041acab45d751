"""Ten secrets are planted in a mixed run that also goes wrong; nothing that was written or answered holds one of them.

Searched are logs, answers, events, the feed, an export, command lines, all of Postgres, and the log's own files.
"""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.e2e.platform import Platform, platform
from tests.waiting import eventually

VMS = "/v1/projects/default/vms"
#: Each is one word, so that no line end or escape can hide it.
PLANTED = {
    "user_data": "planted1UserDataOfACreate",
    "rebuilt": "planted2UserDataOfARebuild",
    "refused": "planted3UserDataOfARefusedCreate",
    "malformed": "planted4UserDataInABodyThatIsNoJson",
    "stranger": "planted5BearerTokenOfAStranger",
    "deleted": "planted6UserDataOfADeletedVm",
    "misplaced": "planted7UserDataInAFieldThatIsNone",
}
QUICK = json.dumps({"image": 0.05, "boot": 0.2, "lease": 0.1, "shutdown": 0.1})


def user_data(name: str) -> str:
    return f"#cloud-config\nbootcmd:\n  - [echo, {PLANTED[name]}]\n"


class Seen:
    """What the platform answered, as bytes."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []

    async def __call__(self, response: httpx.Response) -> None:
        await response.aread()
        self.answers.append(str(response.headers).encode() + response.content)


@pytest.fixture
async def up() -> AsyncIterator[Platform]:
    simulated = {"NEBULA_SIMULATE": "2", "NEBULA_SIMULATE_SECONDS": QUICK, "NEBULA_LOG_LEVEL": "debug"}
    async with platform(**simulated) as made:
        await made.blank_image()
        yield made


async def mixed_run(up: Platform, seen: Seen) -> None:
    """Creates, rebuilds, deletes; refusals of all kinds; roles and servers that die in the middle."""
    size = {"image": "blank", "vcpus": 1, "memory_mib": 64, "disk_gib": 1}
    made = await up.succeed("POST", VMS, {"name": "kept", **size, "user_data": user_data("user_data")})
    kept = f"{VMS}/{made['vm']['id']}"
    other = await up.succeed("POST", VMS, {"name": "other", **size, "user_data": user_data("deleted")})
    async with up.client() as http:
        http.event_hooks["response"] = [seen]
        refused = {"name": "x", **size, "image": "nosuch", "user_data": user_data("refused")}
        assert (await http.post(VMS, json=refused)).status_code == 422
        broken = b'{"name": "x", "user_data": "' + PLANTED["malformed"].encode()
        assert (await http.post(VMS, content=broken, headers={"Content-Type": "application/json"})).status_code == 400
        misplaced = {"name": {"user_data": PLANTED["misplaced"]}, "nosuch": PLANTED["misplaced"], **size}
        assert (await http.post(VMS, json=misplaced)).status_code == 422
        stranger = {"Authorization": f"Bearer {PLANTED['stranger']}"}
        assert (await http.get(VMS, headers=stranger)).status_code == 401
    for role in ("postgres", "nats", "handlers", "projections", "gateway", "node"):
        up.kill(role)
        await up.succeed("POST", f"{kept}/stop", {"force": True})
        await up.succeed("POST", f"{kept}/start")
    await up.succeed("POST", f"{kept}/rebuild", {"user_data": user_data("rebuilt")})
    await up.succeed("DELETE", f"{VMS}/{other['vm']['id']}")


async def read_everything(up: Platform, seen: Seen, vm_paths: list[str]) -> None:
    """Every kind of read, the past and the feed included."""
    async with up.client() as http:
        http.event_hooks["response"] = [seen]
        for path in (
            *("/healthz", "/metrics", "/v1/openapi.json", "/v1/projects", "/v1/tags", "/v1/images", "/v1/nodes"),
            *(VMS, "/v1/operations?limit=500", "/v1/events?limit=500", *vm_paths),
        ):
            assert (await http.get(path)).status_code == 200, path
    async with up.client() as http, http.stream("GET", "/v1/projects/default/feed?after=0") as feed:
        items = b""
        async for piece in feed.aiter_bytes():
            items += piece
            if items.count(b"\ndata:") > 20:
                break
        seen.answers.append(items)


def own_secrets(up: Platform) -> dict[str, bytes]:
    """What the platform made for itself, in every form it may turn up in."""
    master = (up.home / "master.key").read_text().split()[0]
    signing = re.sub(r"-----.*?-----|\s", "", (up.home / "checkpoint.key").read_text())
    return {
        "admin token": (up.home / "admin.token").read_bytes().strip(),
        **{file.name: file.read_bytes().strip() for file in up.home.glob("postgres*.password")},
        "master key": master.encode(),
        "master key, raw": base64.b64decode(master),
        "checkpoint key": signing.encode(),
    }


def command_lines() -> bytes:
    """What `ps` shows to every user of this host."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(file.read_bytes())
        except OSError:
            continue
    return b"\n".join(lines)


async def postgres_rows(up: Platform) -> bytes:
    """All rows of all tables of ours, as text."""
    password, port = (up.home / "postgres.password").read_text(), (up.home / "postgres.port").read_text()
    dsn = f"postgresql://nebula:{password.strip()}@127.0.0.1:{port.strip()}/nebula"
    found: list[bytes] = []
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        tables = await conn.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname LIKE 'nebula%'"
        )
        for (table,) in await tables.fetchall():
            rows = await conn.execute(f"SELECT t::text FROM {table} t".encode())
            found += [row[0].encode() for row in await rows.fetchall()]
    assert found
    return b"\n".join(found)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def found_in(places: dict[str, bytes], secrets: dict[str, bytes]) -> list[str]:
    return [f"{name} in {place}" for place, text in places.items() for name, value in secrets.items() if value in text]


async def test_nothing_that_is_written_or_answered_holds_a_secret(up: Platform) -> None:
    seen = Seen()
    while_running = b""
    running = asyncio.create_task(mixed_run(up, seen))
    while not running.done():
        while_running += await asyncio.to_thread(command_lines)
        await asyncio.wait({running}, timeout=1)
    await running
    page = await up.call("GET", f"/v1/projects/default/vms?min_position={await end(up)}")
    paths = [f"{VMS}/{vm['id']}" for vm in page["items"]]
    await read_everything(up, seen, [*paths, *[f"{path}?at={await end(up)}" for path in paths]])
    exported = up.home / "export" / "log.nebula"
    exported.parent.mkdir()
    await up.nebula("export", str(exported))
    await up.nebula("verify", "log")

    secrets = {name: value.encode() for name, value in PLANTED.items()}
    secrets |= {f"{name}, base64": base64.b64encode(value)[4:-4] for name, value in secrets.items()}
    secrets |= own_secrets(up)
    places: dict[str, bytes] = {
        "ps": while_running,
        "answers": b"\n".join(seen.answers),
        "what nebula up printed": "\n".join(up.printed).encode(),
        "postgres": await postgres_rows(up),
        **files(up.home / "log"),
        **files(exported.parent),
        **files(up.home / "nats"),
    }
    assert any(b"planted" in value for value in files(up.home / "nats").values()) is False
    assert found_in(places, secrets) == []
    await finds_what_is_there(up, places)


async def finds_what_is_there(up: Platform, places: dict[str, bytes]) -> None:
    """The search is no sieve: what is no secret is found in each place."""
    assert b"cli.role" in places["ps"] and b"kept" in places["answers"] and b"kept" in places["postgres"]
    assert any(b"kept" in text for place, text in places.items() if "/nats/" in place)
    assert any(b"kept" in text for place, text in places.items() if place.endswith("log.nebula"))
    assert any(b"Traceback" in text or b"error" in text for place, text in places.items() if place.endswith(".log"))


async def end(up: Platform) -> int:
    """The position of the last event."""

    async def position() -> Any:
        health = await up.call("GET", "/healthz")
        return health["nats"].get("position")

    return int(await eventually(position, "the end of the log"))
