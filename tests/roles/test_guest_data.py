"""guest-data as a process of its own: without rights, and beside others that are killed at any moment."""

import asyncio
import os
import pwd
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest

from bench import homes
from domain.contract import Power
from domain.vm import ChangeVm, DeleteVm
from eventstore.log.envelope import Ref
from runtime import unprivileged
from runtime.local.child import free_port
from runtime.local.servers import Postgres
from runtime.local.supervise import Role, Supervisor
from runtime.tasks.patience import CannotRun
from tests.gate import Gate, gate
from tests.projections.cloud import Cloud, cloud
from tests.roles.processes import role
from tests.waiting import eventually

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")

USER_DATA = b"#!/bin/sh\n: a password of the guest\n"


@dataclass
class Deployment:
    """Projections and guest-data as processes that are started again when they end; Postgres behind a gate."""

    cloud: Cloud
    database: Gate
    url: str
    home: Path
    supervisors: dict[str, Supervisor] = field(default_factory=dict)

    async def start(self, name: str, **settings: str) -> None:
        environment = {
            "NEBULA_HOME": str(self.home),
            "NEBULA_NATS_URL": self.cloud.nats.url,
            "NEBULA_MASTER_KEY_FILE": str(self.cloud.home / "master.key"),
            "NEBULA_EVENT_KEYS_FILE": str(self.cloud.home / "event.keys"),
            **{f"NEBULA_{key}": value for key, value in settings.items()},
        }
        role = Role(name, [sys.executable, "-m", "cli.local.role", name], environment)
        self.supervisors[name] = Supervisor([role], self.home / "log")
        await self.supervisors[name].start()

    async def start_projections(self) -> None:
        parts = urlsplit(self.cloud.dsn)
        place = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{self.database.port}"
        await self.start("projections", POSTGRES_DSN=urlunsplit(parts._replace(netloc=place)))

    async def start_guest_data(self) -> None:
        await self.start("guest-data", SEED_HOST="127.0.0.1", SEED_PORT=self.url.rpartition(":")[2])

    def pid(self, name: str) -> int | None:
        return self.supervisors[name].pids.get(name)

    async def kill(self, name: str) -> None:
        """SIGKILL; it is started again."""
        before = self.pid(name)
        if before is not None:
            os.kill(before, signal.SIGKILL)
        await eventually(lambda: self.pid(name) not in (None, before), f"{name} is started again")

    async def end(self, name: str) -> None:
        """SIGKILL; it is not started again."""
        supervisor = self.supervisors.pop(name)
        pid = supervisor.pids.get(name)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        await supervisor.stop()

    async def secret(self, ref: Ref) -> str:
        return await self.cloud.vault.seed_secret(ref.id, 1)

    async def placed(self) -> Ref:
        ref = await self.cloud.create(user_data=await self.cloud.vault.seal("k" * 8, USER_DATA))
        await self.secret(ref)  # makes the VM's key, as placement does before it
        await self.cloud.place(ref)
        return ref

    async def get(self, secret: str, name: str = "user-data") -> tuple[int, bytes]:
        """The answer; status 0 where nobody is there."""
        try:
            async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
                answer = await http.get(f"{self.url}/{secret}/{name}")
        except httpx.TransportError:
            return 0, b""
        return answer.status_code, answer.content

    async def tells(self, secret: str, status: int) -> None:
        """Wait for this answer. What comes before it may be no wrong one."""

        async def is_so() -> bool:
            found, content = await self.get(secret)
            assert found in (0, 200, 404, 503)
            assert found != 200 or content == USER_DATA
            return found == status

        await eventually(is_so, f"the guest is answered {status}")


@pytest.fixture(scope="module")
async def deployment(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> AsyncIterator[Deployment]:
    home = tmp_path_factory.mktemp("deployment")
    with homes.home("test") as folder:
        async with cloud(home, postgres) as made, gate(postgres.port) as database:
            await database.open()
            await made.furnish()
            found = Deployment(made, database, f"http://127.0.0.1:{free_port()}", folder)
            try:
                await found.start_projections()
                await found.start_guest_data()
                yield found
            finally:
                for name in list(found.supervisors):
                    await found.end(name)


@needs_root
async def test_started_by_root_it_has_no_rights(deployment: Deployment) -> None:
    await deployment.tells(await deployment.secret(await deployment.placed()), 200)
    pid = deployment.pid("guest-data")
    lines = [line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    said = {name: value.split() for name, value in lines}
    folder = deployment.home / "guest-data"
    assert set(said["Uid"]) == {str(folder.stat().st_uid)} != {"0"}
    assert set(said["Gid"]) == {str(folder.stat().st_gid)} != {"0"}
    assert (said["Groups"], said["NoNewPrivs"]) == ([], ["1"])
    assert [int(said[name][0], 16) for name in ("CapInh", "CapPrm", "CapEff")] == [0, 0, 0]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(list(folder.iterdir())) >= 1
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"NEBULA_POSTGRES_DSN" not in environment


async def test_whoever_is_killed_a_guest_gets_its_answer_or_is_told_to_try_again(deployment: Deployment) -> None:
    ref = await deployment.placed()
    secret = await deployment.secret(ref)
    await deployment.tells(secret, 200)
    chance = random.Random(7)
    over = False
    seen: list[int] = []

    async def ask() -> None:
        while not over:
            status, content = await deployment.get(secret)
            seen.append(status)
            assert status in (0, 200, 503)
            assert status != 200 or content == USER_DATA

    async def no_postgres() -> None:
        await deployment.database.close()
        await asyncio.sleep(chance.uniform(0, 0.3))
        await deployment.database.open()

    kills: list[Callable[[], Awaitable[None]]] = [
        partial(deployment.kill, "guest-data"),
        partial(deployment.kill, "projections"),
        no_postgres,
    ]
    guests = [asyncio.create_task(ask()) for _ in range(3)]
    try:
        for _ in range(2):
            for kill in kills:
                await kill()
                await asyncio.sleep(chance.uniform(0, 0.3))
        before = len(seen)
        await eventually(lambda: 200 in seen[before:], "a guest is answered after all of that")
    finally:
        over = True
        await asyncio.gather(*guests)
    await deployment.cloud.do(ref, ChangeVm(**deployment.cloud.asked(vm=ref.id, name="db-1")))

    async def renamed() -> bool:
        return b"local-hostname: db-1" in (await deployment.get(secret, "meta-data"))[1]

    await eventually(renamed, "what is new is told")


async def test_a_copy_outlives_the_process_and_ends_with_its_vm(deployment: Deployment) -> None:
    cloud, ref, unseen = deployment.cloud, await deployment.placed(), await deployment.placed()
    secret = await deployment.secret(ref)
    await deployment.tells(secret, 200)
    await deployment.end("projections")
    assert await deployment.get(secret) == (200, USER_DATA)
    await deployment.kill("guest-data")
    await deployment.tells(secret, 200)
    assert (await deployment.get(await deployment.secret(unseen)))[0] == 503
    await cloud.ask(ref, DeleteVm)
    await cloud.report(ref, Power.ABSENT)
    assert await deployment.get(secret) == (200, USER_DATA), "nobody can say"
    await deployment.start_projections()
    await deployment.tells(await deployment.secret(unseen), 200)
    await deployment.tells(secret, 404)
    assert secret.encode() not in b"".join(file.read_bytes() for file in deployment.home.rglob("*") if file.is_file())
    await deployment.end("projections")
    await deployment.kill("guest-data")
    await deployment.tells(secret, 503)
    await deployment.start_projections()


async def test_a_home_that_cannot_be_used_costs_guests_nothing(deployment: Deployment, tmp_path: Path) -> None:
    home = tmp_path / "occupied"
    home.write_text("mine")
    async with role("guest-data", tmp_path, deployment.cloud.nats.url, HOME=str(home)) as running:
        await running.says("copies are kept only in memory", str(home))
        await running.says("data source listens")
    assert home.read_text() == "mine"


PROGRAM = """
import ctypes, os, pwd
from runtime import unprivileged
account = unprivileged.account("nobody")
unprivileged.become(account)
death = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(death), 0, 0, 0)
print(os.getresuid(), os.getresgid(), os.getgroups(), death.value)
for back in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])):
    try:
        back()
    except PermissionError:
        print("no way back")
"""


@needs_root
def test_there_is_no_way_back_and_the_signal_for_a_dead_parent_stays() -> None:
    command = ["setpriv", "--groups", "1,2", "--pdeathsig", "TERM", "--", sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    user = pwd_of("nobody")
    first, *others = done.stdout.splitlines()
    assert first == f"{(user[0],) * 3} {(user[1],) * 3} [] {int(signal.SIGTERM)}"
    assert others == ["no way back"] * 3


@needs_root
def test_each_part_has_an_id_that_is_nobody_elses() -> None:
    names = ("nebula-guest-data", "nebula-image")
    made = [unprivileged.account(name) for name in names]
    ids = {one.uid for one in made if one is not None}
    assert len(ids) == 2
    assert ids.isdisjoint({each.pw_uid for each in pwd.getpwall()} | {0, pwd_of("nobody")[0]})
    assert made == [unprivileged.account(name) for name in names], "files of an earlier start belong to it"


@needs_root
def test_an_id_that_a_user_has_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    first = unprivileged.account("nebula-image")
    assert first is not None
    monkeypatch.setattr(unprivileged, "_taken", lambda id_: id_ == first.uid)
    other = unprivileged.account("nebula-image")
    assert other is not None
    assert other.uid != first.uid


@needs_root
def test_root_is_nobody_without_rights() -> None:
    with pytest.raises(CannotRun, match="root"):
        unprivileged.account("root")


def pwd_of(name: str) -> tuple[int, int]:
    found = pwd.getpwnam(name)
    return found.pw_uid, found.pw_gid
