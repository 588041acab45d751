"""Who may call, and what happens when something behind the gateway is away."""

import asyncio
import hashlib
import os
import re
import socket
import sys
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.local import role as roles
from domain.access import Grant, Role
from gateway.access.auth import Authentication
from gateway.access.tokens_file import BadTokens, TokensFile, parse
from gateway.http.problems import Problem
from gateway.state import Gateway
from runtime.local.servers import Postgres, start_nats, start_postgres
from runtime.settings import GatewaySettings
from tests.gateway.platform import SPEC, VMS, Platform, frames, platform, served
from tests.waiting import eventually

GOOD = {"name": "web-1", "image": "base", **SPEC}


def look_again(gateway: Gateway) -> None:
    """Let the gateway look at its tokens file with the next call."""
    for source in gateway.access.sources or ():
        if isinstance(source, TokensFile):
            source._looked = 0.0


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


async def test_tokens(api: Platform, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# people\nalice {digest('secret-a')}\njose\u0301 {digest('secret-j')}\n")
    async with (
        served(api.side, api.dsn, tokens_file=file) as (gateway, url),
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        for bad in (None, "Basic eDp5", "Bearer", "Bearer wrong", f"Bearer {digest('secret-a')}"):
            answer = await http.get("/v1/projects", headers={"Authorization": bad} if bad else {})
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), bad
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["x-request-id"] == answer.json()["request_id"]
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/metrics")).status_code == 401
        mine = {"Authorization": "Bearer secret-a"}
        made = await http.post(VMS, json=GOOD, headers=mine)
        assert made.status_code == 202
        operation = made.json()["operation"]
        assert operation["actor"] == "alice"
        events = await http.get(f"/v1/events?operation={operation['id']}", headers=mine)
        first = events.json()["items"][0]
        assert first["actor"] == "alice"
        assert re.fullmatch(r"hmac-[0-9a-f]{8}-[0-9a-f]{32}", first["credential"])
        assert digest("secret-a")[:12] not in first["credential"]

        theirs = {"Authorization": "Bearer secret-j"}
        made = await http.post(VMS, json=GOOD, headers=theirs)
        assert made.json()["operation"]["actor"] == "jos\u00e9"
        for spelled in ("jos\u00e9", "jose\u0301"):
            events = await http.get("/v1/events", params={"actor": spelled}, headers=theirs)
            assert [event["actor"] for event in events.json()["items"]] == ["jos\u00e9"]
        assert (await http.get("/v1/events", params={"actor": "a\u0085b"}, headers=theirs)).status_code == 400

        file.write_text(f"bob {digest('secret-b')}\n")
        look_again(gateway)
        assert (await http.get("/v1/projects", headers=mine)).status_code == 401
        file.write_text("not a token file\n")
        look_again(gateway)
        bobs = {"Authorization": "Bearer secret-b"}
        assert (await http.get("/v1/projects", headers=bobs)).status_code == 200


async def test_keys_belong_to_their_caller(api: Platform, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"alice {digest('a')}\nbob {digest('b')}\n")
    key = {"Idempotency-Key": str(uuid.uuid4())}
    async with (
        served(api.side, api.dsn, tokens_file=file) as (_, url),
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        made = [
            (await http.post(VMS, json=GOOD, headers={"Authorization": f"Bearer {token}", **key})).json()
            for token in "ab"
        ]
    assert made[0]["vm"]["id"] != made[1]["vm"]["id"]


def test_a_tokens_file_is_judged_line_by_line(tmp_path: Path) -> None:
    with pytest.raises(BadTokens, match="line 2"):
        parse(f"alice {digest('a')}\nbob secret\n")
    for name in ("a\x7fb", "a\u200eb", "\u0301e"):
        with pytest.raises(BadTokens, match=r"line 1: the name .* printable"):
            parse(f"{name} {digest('a')}\n")
    for name in ("jos\u00e9", "jose\u0301"):  # one name, however it is written
        assert parse(f"{name} {digest('a')}\n")[digest("a")].actor == "jos\u00e9"
    with pytest.raises(BadTokens, match="cannot be read"):
        TokensFile(tmp_path / "missing").load()
    with pytest.raises(BadTokens, match=r"line 1: .*':'"):
        parse(f"user:alice {digest('a')}\n")
    for wrong in ("boss", "operator@web", "viewer@WEB", "viewer,"):
        with pytest.raises(BadTokens, match=r"line 1: .*role"):
            parse(f"alice {digest('a')} {wrong}\n")
    read = parse(f"alice {digest('a')}\nbob {digest('b')} auditor\n")
    assert [one.access.grants for one in read.values()] == [{Grant(Role.OPERATOR)}, {Grant(Role.AUDITOR)}]


async def test_without_a_source_no_token_is_known() -> None:
    with pytest.raises(Problem, match="unknown"):
        await Authentication([TokensFile(None)]).identify("Bearer x")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"HTTP_HOST": "0.0.0.0", "AUTH": "none"}, "NEBULA_AUTH"),
        ({"HTTP_HOST": "images.example", "AUTH": "none"}, "NEBULA_AUTH"),
        ({"AUTH": "none", "TOKENS_FILE": "{}/short"}, "NEBULA_AUTH"),
        ({"TOKENS_FILE": "{}/none"}, "{}/none"),
        ({"TOKENS_FILE": "{}/short"}, "line 1"),
        ({"HTTP_PORT": "{port}"}, "NEBULA_HTTP_PORT"),
        ({"HTTP_HOST": "0.0.0.0"}, "NEBULA_TLS_CERT"),
        ({"TLS_CERT": "{}/none"}, "NEBULA_TLS_CERT"),
    ],
)
def test_settings_that_cannot_be_served_end_it_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: dict[str, str], says: str
) -> None:
    """With status 2, as those that are no settings at all."""
    (tmp_path / "short").write_text("alice hunter2\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        named: dict[str, Any] = {"http_port": 0, "home": tmp_path}
        for name, text in given.items():
            named[name.lower()] = text.replace("{}", str(tmp_path)).replace("{port}", port)
        with pytest.raises(SystemExit) as ended:
            roles.run("gateway", GatewaySettings(**named))
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (2, 1), said
    assert says.replace("{}", str(tmp_path)) in said
    assert "hunter2" not in said


async def test_it_ends_clean_on_sigterm(api: Platform) -> None:
    env = {
        **os.environ,
        "NEBULA_HOME": str(api.side.home),
        "NEBULA_HTTP_PORT": "0",
        "NEBULA_NATS_URL": api.side.nats.url,
        "NEBULA_POSTGRES_DSN": api.dsn,
    }
    command = [sys.executable, "-m", "cli.local.role", "gateway"]
    process = await asyncio.create_subprocess_exec(
        *command, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    async for line in process.stdout:
        if b"gateway listens" in line:
            break
    process.terminate()
    rest = await process.stdout.read()
    assert await process.wait() == 0
    assert b"Traceback" not in rest


async def repeats_without_rows(api: Platform) -> None:
    """A repeat shows the operation's record, and one key makes one resource, without the read models."""
    unplaced = {**GOOD, "region": "nowhere"}
    made = await api.call("POST", VMS, unplaced, idempotency_key="gone", x_request_id="r-1")
    deleted = await api.call("DELETE", f"{VMS}/{made.json()['vm']['id']}")
    assert deleted.json()["operation"]["status"] == "succeeded"
    again = await api.call("POST", VMS, unplaced, idempotency_key="gone", x_request_id="r-2")
    first, shown = made.json()["operation"], again.json()["operation"]
    assert again.json()["vm"]["phase"] == "deleted"
    assert (shown["status"], shown["request_id"]) == ("cancelled", "r-1")
    assert (shown["id"], shown["accepted_at"]) == (first["id"], first["accepted_at"])
    tags = [f"t-{uuid.uuid4().hex[:8]}" for _ in range(8)]
    calls = [api.call("POST", "/v1/tags", {"name": tag}, idempotency_key="many") for tag in tags]
    assert sorted(answer.status_code for answer in await asyncio.gather(*calls)) == [202, *[422] * 7]


async def test_without_postgres_commands_go_on(tmp_path: Path, servers_home: Path) -> None:
    home = servers_home / f"own-{uuid.uuid4().hex[:8]}"
    own = await start_postgres(home, durable=False)
    try:
        async with platform(tmp_path, own) as api:
            await api.create()
            await own.kill()
            made = await api.create(name="meanwhile")
            keyed = await api.call("POST", VMS, GOOD, idempotency_key="k")
            assert keyed.status_code == 202
            await repeats_without_rows(api)
            read = await api.http.get(f"{VMS}/{made['vm']['id']}")
            assert (read.status_code, read.json()["code"]) == (503, "read_models_unavailable")
            assert read.headers["retry-after"] == "1"
            assert (await api.http.get("/healthz")).json()["postgres"]["status"] == "unavailable"
            own = await start_postgres(home, port=own.port, durable=False)

            async def back() -> bool:
                return (await api.http.get(f"{VMS}/{made['vm']['id']}")).status_code == 200

            await eventually(back, "reads are back")
            assert (await api.http.get(f"{VMS}/{made['vm']['id']}?min_position={made['position']}")).status_code == 200
    finally:
        await own.stop()


async def test_without_the_log_nothing_is_accepted(tmp_path: Path, postgres: Postgres) -> None:
    async with AsyncExitStack() as servers, platform(tmp_path, postgres) as api:
        made = await api.create()
        await api.get(f"{VMS}/{made['vm']['id']}")
        await api.side.nats.kill()
        refused = await api.call("POST", VMS, GOOD, idempotency_key="again")
        assert (refused.status_code, refused.json()["code"]) == (503, "log_unavailable")
        assert refused.headers["retry-after"] == "1"
        assert "Idempotency-Key" in refused.json()["detail"]
        assert (await api.get(f"{VMS}/{made['vm']['id']}"))["id"] == made["vm"]["id"]
        assert (await api.http.get("/healthz")).status_code == 503
        restarted = await start_nats(tmp_path, port=api.side.nats.port)
        servers.push_async_callback(restarted.stop)

        async def accepted() -> bool:
            return (await api.call("POST", VMS, GOOD, idempotency_key="again")).status_code == 202

        await eventually(accepted, "commands are accepted again")


async def test_without_handlers_it_says_so(tmp_path: Path, postgres: Postgres) -> None:
    async with platform(tmp_path, postgres) as api:
        await api.side.stop_all()
        answer = await api.call("POST", VMS, GOOD)
        assert (answer.status_code, answer.json()["code"]) == (503, "log_unavailable")


async def test_a_feed_survives_the_log(tmp_path: Path, postgres: Postgres) -> None:
    async with AsyncExitStack() as servers, platform(tmp_path, postgres) as api:
        made = await api.create()
        seen = (await api.get("/v1/events?limit=500"))["items"][-1]["position"]
        coming = asyncio.create_task(frames(api.http, f"/v1/feed?after={seen}", 1))
        await asyncio.sleep(0.3)
        await api.side.nats.kill()
        restarted = await start_nats(tmp_path, port=api.side.nats.port)
        servers.push_async_callback(restarted.stop)

        async def accepted() -> bool:
            return (await api.call("DELETE", f"{VMS}/{made['vm']['id']}")).status_code in (202, 409, 410)

        await eventually(accepted, "commands are accepted again")
        assert (await coming)[0]["prev"] == seen
