"""Secrets of many kinds are planted in a mixed run that also goes wrong; nothing that is written or answered holds one.

Searched are logs, answers, events, the feed, an export, command lines and what they print, temporary files, all of
Postgres, and the log's own files. What holds secrets is for its owner only.
"""

import asyncio
import base64
import gzip
import json
import re
import stat
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from websockets.asyncio.client import connect

from domain.contract import Wanted
from eventstore.documents import Documents
from runtime import subjects
from runtime.bus.accounts import credentials
from runtime.bus.accounts.table import MAINTENANCE
from tests.cli.test_up import open_to_others
from tests.e2e.platform import Platform, platform
from tests.waiting import eventually

VMS = "/v1/projects/default/vms"
RUN = uuid.uuid4().hex[:8]
#: Each is one word, so that no line end or escape can hide it, and of this run alone.
PLANTED = {
    "user_data": f"planted1UserDataOfACreate{RUN}",
    "rebuilt": f"planted2UserDataOfARebuild{RUN}",
    "refused": f"planted3UserDataOfARefusedCreate{RUN}",
    "malformed": f"planted4UserDataInABodyThatIsNoJson{RUN}",
    "stranger": f"planted5BearerTokenOfAStranger{RUN}",
    "deleted": f"planted6UserDataOfADeletedVm{RUN}",
    "misplaced": f"planted7UserDataInAFieldThatIsNone{RUN}",
    "packed": f"planted8UserDataInGzip{RUN}",
    "url_password": f"planted9PasswordInTheUrlOfAnImage{RUN}",
    "url_signature": f"planted10SignatureInTheUrlOfAnImage{RUN}",
    "url_refused": f"planted11PasswordInAUrlThatIsRefused{RUN}",
    "path": f"planted12TokenInAPath{RUN}",
    "header": f"planted13BasicPassword{RUN}",
    "nats": f"planted14PasswordForNats{RUN}",
    "nats_url": f"planted15PasswordInTheUrlOfNats{RUN}",
    "dsn": f"planted16PasswordInTheDsn{RUN}",
    "bad_dsn": f"planted17PasswordInADsnThatIsNone{RUN}",
    "key_options": f"planted18PasswordInTheOptionsOfAKey{RUN}",
    "key_private": f"planted19ALineOfAPrivateKey{RUN}",
}
ROLES = ("postgres", "nats", "handlers", "projections", "guest-data", "gateway", "node")
VERIFY_VIEWS = ("cli.main", "verify", "views")
QUICK = json.dumps({"image": 0.05, "boot": 0.2, "lease": 0.1, "shutdown": 0.1})


def user_data(name: str) -> str:
    return f"#cloud-config\nbootcmd:\n  - [echo, {PLANTED[name]}]\n"


def packed(text: str) -> str:
    """Text in gzip, in base64: as cloud-init takes it too."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def mime(body: str) -> str:
    head = 'Content-Type: multipart/mixed; boundary="b"\nMIME-Version: 1.0\n\n--b\nContent-Type: text/cloud-config\n'
    return f"{head}Content-Transfer-Encoding: base64\n\n{body}\n--b--\n"


class Seen:
    """What the platform answered, as bytes."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []

    async def __call__(self, response: httpx.Response) -> None:
        await response.aread()
        self.answers.append(str(response.headers).encode() + response.content)


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Platform]:
    simulated = {"NEBULA_SIMULATE": "2", "NEBULA_SIMULATE_SECONDS": QUICK, "NEBULA_LOG_LEVEL": "debug"}
    bus = {"NEBULA_NATS_USER": "nebula", "NEBULA_NATS_PASSWORD": PLANTED["nats"]}  # our server takes any
    async with platform(**simulated, **bus, TMPDIR=str(tmp_path)) as made:
        await made.blank_image()
        yield made


async def mixed_run(up: Platform, seen: Seen) -> None:
    """Creates, rebuilds, deletes; refusals of all kinds; roles and servers that die in the middle."""
    size = {"image": "blank", "vcpus": 1, "memory_mib": 64, "disk_gib": 1}
    made = await up.succeed("POST", VMS, {"name": "kept", **size, "user_data": user_data("user_data")})
    kept = f"{VMS}/{made['vm']['id']}"
    other = await up.succeed("POST", VMS, {"name": "other", **size, "user_data": user_data("deleted")})
    await up.succeed("POST", VMS, {"name": "packed", **size, "user_data": mime(packed(user_data("packed")))})
    await up.succeed("POST", VMS, {"name": "bytes", **size, "user_data_base64": packed(user_data("packed"))})
    async with up.client() as http:
        http.event_hooks["response"] = [seen]
        refused = {"name": "x", **size, "image": "nosuch", "user_data": user_data("refused")}
        assert (await http.post(VMS, json=refused)).status_code == 422
        broken = b'{"name": "x", "user_data": "' + PLANTED["malformed"].encode()
        assert (await http.post(VMS, content=broken, headers={"Content-Type": "application/json"})).status_code == 400
        misplaced = {"name": {"user_data": PLANTED["misplaced"]}, "nosuch": PLANTED["misplaced"], **size}
        assert (await http.post(VMS, json=misplaced)).status_code == 422
        for key in (f'environment="P={PLANTED["key_options"]}" ssh-ed25519 AAAA', f"{PLANTED['key_private']} AAAA"):
            assert (await http.post(VMS, json={"name": "x", **size, "ssh_keys": [key]})).status_code == 422
        stranger = {"Authorization": f"Bearer {PLANTED['stranger']}"}
        assert (await http.get(VMS, headers=stranger)).status_code == 401
        basic = base64.b64encode(f"admin:{PLANTED['header']}".encode()).decode()
        assert (await http.get(VMS, headers={"Authorization": f"Basic {basic}"})).status_code == 401
        await images(http)
    await tokens(up)
    await by_ways_around(up, made["vm"]["id"], seen)
    await strangers_at_the_data_source(up)
    for role in ROLES:
        up.kill(role)
        await up.succeed("POST", f"{kept}/stop", {"force": True})
        await up.succeed("POST", f"{kept}/start")
    await up.succeed("POST", f"{kept}/rebuild", {"user_data": user_data("rebuilt")})
    await up.succeed("DELETE", f"{VMS}/{other['vm']['id']}")


async def tokens(up: Platform) -> None:
    """A token is issued, used, spelled wrong and revoked. The answers that show it are not among those seen."""
    async with up.client() as http:
        assert (await http.post("/v1/users", json={"id": "holder", "name": "holder"})).status_code == 202
        body, key = {"name": "holder", "principal": "user:holder"}, {"Idempotency-Key": f"key-{RUN}"}
        for _ in range(2):
            answer = await http.post("/v1/tokens", json=body, headers=key)
            made = answer.json()["secret"]
        PLANTED["token of the log"] = made
        PLANTED["secret of the token"] = made.rsplit("_", 1)[1]

        async def status(token: str, path: str = "/v1/me") -> int:
            return (await http.get(path, headers={"Authorization": f"Bearer {token}"})).status_code

        async def works() -> bool:
            return await status(made) == 200

        await eventually(works, "the token works")
        assert [await status(made, "/v1/status"), await status(made[:-1]), await status(f"{made}x")] == [403, 401, 401]
        assert await status(made, f"/v1/projects/{made}") in (400, 404)
        assert (await http.delete(f"/v1/tokens/{answer.json()['token']['id']}")).status_code == 202

        async def ended() -> bool:
            return await status(made) == 401

        await eventually(ended, "the token is revoked")


async def by_ways_around(up: Platform, vm: str, seen: Seen) -> None:
    """What a browser does: a feed by a ticket, a console with the token among the subprotocols."""
    feed = "/v1/projects/default/feed"
    async with up.client() as http:
        given = (await http.post("/v1/tickets", json={"path": feed})).json()["ticket"]
        PLANTED["ticket"] = given
    target = f"{up.url}{feed}?after=0&ticket={given}"
    for status in (200, 401):
        async with httpx.AsyncClient() as http, http.stream("GET", target) as answer:
            assert answer.status_code == status
    token = base64.urlsafe_b64encode((up.home / "admin.token").read_bytes().strip()).decode().rstrip("=")
    PLANTED["token of a console"] = token
    console = f"{up.url.replace('http', 'ws')}{VMS}/{vm}/console"
    async with connect(console, subprotocols=["binary", f"bearer.{token}"], proxy=None) as socket:  # type: ignore[list-item]
        assert socket.response is not None
        seen.answers.append(str(socket.response.headers).encode())


async def failing(up: Platform) -> bytes:
    """What is said by programs that are told wrong addresses, with passwords in them."""
    nats, dsn, bad = PLANTED["nats_url"], PLANTED["dsn"], PLANTED["bad_dsn"]
    port = (up.home / "nats.port").read_text().strip()
    home = {**up.env, "NEBULA_HOME": f"{up.home}/nowhere"}
    there = {"NEBULA_NATS_URL": f"127.0.0.1:{port}", "NEBULA_NATS_CREDS": str(up.credential(MAINTENANCE))}
    away = {"NEBULA_NATS_URL": f"nats://op:{nats}@127.0.0.1:1"}
    said = await asyncio.gather(
        program(home | away, "cli.main", "verify", "log", "--no-key"),
        program(home | {"NEBULA_NATS_URL": f"nats://op:{nats}/x@127.0.0.1:1"}, "cli.local.role", "node"),
        program(home | {"NEBULA_POSTGRES_DSN": f"postgresql:/u:{bad}@127.0.0.1/db"}, "cli.local.role", "gateway"),
        program(home | {"NEBULA_POSTGRES_DSN": f"host=h password='{dsn} x"}, "cli.local.role", "projections"),
        program(home | there | {"NEBULA_POSTGRES_DSN": f"postgresql://u:{dsn}@127.0.0.1:1/db"}, *VERIFY_VIEWS),
    )
    assert all(b"NEBULA_" in each or b"answer" in each for each in said), said
    return b"\n".join(said)


async def program(env: dict[str, str], *words: str) -> bytes:
    """What a program prints that cannot work."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", *words, env=env, stdout=pipe, stderr=pipe)
    out, err = await child.communicate()
    assert child.returncode
    return out + err


async def images(http: httpx.AsyncClient) -> None:
    """Images from URLs with credentials: one that nobody serves, one that is refused."""
    url = f"http://admin:{PLANTED['url_password']}@127.0.0.1:1/i.qcow2?X-Amz-Signature={PLANTED['url_signature']}"
    answer = await http.post("/v1/images", json={"id": "signed", "name": "signed", "source": url})
    assert answer.status_code == 202, answer.text
    refused = f"http://admin:{PLANTED['url_refused']}@169.254.169.254/latest"
    answer = await http.post("/v1/images", json={"id": "refused", "name": "refused", "source": refused})
    assert answer.status_code in (202, 422), answer.text


async def strangers_at_the_data_source(up: Platform) -> None:
    """Whoever guesses the secret of a guest's URL, and who was given a good one."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{up.seed_port}") as guest:
        answer = await guest.get(f"/{PLANTED['path']}/user-data")
        assert answer.status_code in (404, 503)


async def seed_secrets(up: Platform) -> dict[str, bytes]:
    """What opens the data of each VM at its last boot, as the node was told."""
    async with up.maintenance() as nc:
        documents = await Documents(nc, subjects.WANTED).all(subjects.wanted_of())
    urls = [Wanted.model_validate_json(document.body).seed_url for document in documents]
    return {f"seed {number}": url.rstrip("/").rsplit("/", 1)[-1].encode() for number, url in enumerate(urls) if url}


def dumps_core(pid: int) -> bool:
    """Whether a process may leave its memory in a file."""
    limits = Path(f"/proc/{pid}/limits").read_text()
    return re.search(r"Max core file size +0 +0 ", limits) is None


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
        **{file.name: file.read_bytes().strip() for file in (up.home / "bus" / "keys").iterdir()},
        **{file.name: credentials.parts(file)[1].seed for file in (up.home / "bus").glob("*.creds")},
        "master key": master.encode(),
        "pepper": (up.home / "pepper.key").read_bytes().strip(),
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


async def test_nothing_that_is_written_or_answered_holds_a_secret(up: Platform, tmp_path: Path) -> None:
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
    exported.parent.mkdir(mode=0o700)
    await up.nebula("export", str(exported))
    await up.nebula("verify", "log")

    said_by_programs = await failing(up)

    secrets = {name: value.encode() for name, value in PLANTED.items()}
    secrets["packed, as it was sent"] = packed(user_data("packed")).encode()
    secrets |= {f"{name}, base64": base64.b64encode(value)[4:-4] for name, value in secrets.items()}
    secrets |= own_secrets(up)
    seeds = await seed_secrets(up)
    assert seeds
    places: dict[str, bytes] = {
        "ps": while_running,
        "answers": b"\n".join(seen.answers),
        "what nebula up printed": "\n".join(up.printed).encode(),
        "what failing programs said": said_by_programs,
        "postgres": await postgres_rows(up),
        **files(up.home / "log"),
        **files(exported.parent),
        **files(up.home / "nats"),
        **files(tmp_path),
    }
    assert any(b"planted" in value for value in files(up.home / "nats").values()) is False
    assert found_in(places, secrets) == []
    told = {place: text for place, text in places.items() if not place.startswith(str(up.home / "nats"))}
    assert found_in(told, seeds) == [], "only documents for nodes hold the secret of a boot"
    await finds_what_is_there(up, places)
    mine = ("blank.raw", "image-store/")  # the operator's own file, and its second name, which nobody else gets to
    assert [found for found in open_to_others(up.home) if not any(each in found for each in mine)] == []
    assert stat.S_IMODE((up.home / "image-store").stat().st_mode) == 0o700
    assert [role for role in ROLES if dumps_core(up.pid(role))] == []


async def finds_what_is_there(up: Platform, places: dict[str, bytes]) -> None:
    """The search is no sieve: what is no secret is found in each place."""
    assert b"cli.local.role" in places["ps"] and b"kept" in places["answers"] and b"kept" in places["postgres"]
    assert any(b"kept" in text for place, text in places.items() if "/nats/" in place)
    assert any(b"kept" in text for place, text in places.items() if place.endswith("log.nebula"))
    assert any(b"Traceback" in text or b"error" in text for place, text in places.items() if place.endswith(".log"))


async def end(up: Platform) -> int:
    """The position of the last event."""

    async def position() -> Any:
        health = await up.call("GET", "/healthz")
        return health["nats"].get("position")

    return int(await eventually(position, "the end of the log"))
