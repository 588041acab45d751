"""The data source, asked over HTTP as a guest asks it."""

import asyncio
import itertools
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from domain import vm
from domain.contract import Power
from domain.project import ChangeProject
from domain.vm import AbandonVm, ChangeVm, RebuildVm
from eventstore.log.envelope import Ref
from eventstore.log.store import EventStore
from projections import guest_answers, seeds
from projections.database import Pool
from projections.guest_data import phone_home
from projections.seeds import Seed
from runtime import listener
from tests.projections.cloud import KEY, SSH_KEY
from tests.projections.guests import Guests, guests, placed

__all__ = ["guests"]

USER_DATA = "#!/bin/sh\necho 'h\u00e9llo: {{ }} %s' \t\r\n\n"


async def test_what_a_guest_is_told(guests: Guests) -> None:
    id_ = "11111111-2222-4333-8444-555555555555"
    sealed = await guests.cloud.vault.seal(id_, USER_DATA)
    tricky = SSH_KEY + ' "quoted": #not a comment'
    ref = await placed(guests, id_=id_, ssh_keys=(SSH_KEY, tricky), user_data=sealed)
    secret = await guests.secret(ref)
    meta = await guests.get(secret, "meta-data")  # at once: the read models may be behind
    assert meta.status_code == 200
    assert yaml.safe_load(meta.text) == {
        "instance-id": id_,
        "local-hostname": "web-1",
        "public-keys": [SSH_KEY, tricky],
    }
    assert (await guests.get(secret, "user-data")).content == USER_DATA.encode()
    vendor = await guests.get(secret, "vendor-data")
    assert vendor.text.startswith("#cloud-boothook\n#!/bin/sh\n"), "user-data cannot override it"
    assert f'"http://{guests.host}/{secret}/phone-home"' in vendor.text
    network = await guests.get(secret, "network-config")
    assert (network.status_code, network.content) == (200, b"")
    head = await guests.http.head(f"/{secret}/meta-data")
    assert (head.status_code, head.content) == (200, b"")


async def test_the_keys_of_its_project_are_told_as_they_are_now(guests: Guests) -> None:
    async def change(*keys: str) -> None:
        ref = Ref("default", "project", "default")
        await guests.cloud.do(ref, ChangeProject(**guests.cloud.asked(project="default", ssh_keys=keys)))
        await guests.cloud.caught_up()

    async def told() -> list[str]:
        keys: list[str] = yaml.safe_load((await guests.get(secret, "meta-data")).text)["public-keys"]
        return keys

    of_project, of_both = f"ssh-ed25519 {KEY} project", f"ssh-ed25519 {KEY} both"
    ref = await placed(guests, ssh_keys=(SSH_KEY, of_both))
    secret = await guests.secret(ref)
    assert await told() == [SSH_KEY, of_both]
    await change(of_both, of_project)
    assert await told() == [SSH_KEY, of_both, of_project], "its own first, and none twice"
    await change()
    assert await told() == [SSH_KEY, of_both]


async def test_a_vm_with_another_name_is_told_so(guests: Guests) -> None:
    ref = await placed(guests)
    secret = await guests.secret(ref)
    before = yaml.safe_load((await guests.get(secret, "meta-data")).text)
    await guests.cloud.do(ref, ChangeVm(**guests.cloud.asked(vm=ref.id, name="db-1")))
    end = await guests.cloud.store.last_position()
    await guests.cloud.position.reach(end, 10)
    after = yaml.safe_load((await guests.get(secret, "meta-data")).text)
    assert after == {**before, "local-hostname": "db-1"}


async def test_a_rebuilt_vm_is_a_new_machine_to_its_guest(guests: Guests) -> None:
    ref = await placed(guests)
    first = yaml.safe_load((await guests.get(await guests.secret(ref), "meta-data")).text)
    sealed = await guests.cloud.vault.seal(ref.id, "#cloud-config\n# new\n")
    asked = guests.cloud.asked(vm=ref.id, image="base", user_data=sealed)
    await guests.cloud.do(ref, AbandonVm(**guests.cloud.asked(vm=ref.id)))
    await guests.cloud.do(ref, RebuildVm(**asked))
    secret = await guests.cloud.vault.seed_secret(ref.id, 2)
    again = yaml.safe_load((await guests.get(secret, "meta-data")).text)
    assert again == {**first, "instance-id": f"{ref.id}-2"}
    assert (await guests.get(secret, "user-data")).text == "#cloud-config\n# new\n"


async def test_a_vm_without_user_data_gets_an_empty_one(guests: Guests) -> None:
    ref = await placed(guests)
    secret = await guests.secret(ref)
    answer = await guests.get(secret, "user-data")
    assert (answer.status_code, answer.content) == (200, b"")
    assert yaml.safe_load((await guests.get(secret, "meta-data")).text)["public-keys"] == []


async def test_read_models_that_are_behind_do_not_say_that_there_is_nothing(
    guests: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_answers, "PATIENCE", 0.1)
    ref = await placed(guests)
    secret = await guests.secret(ref)
    assert (await guests.get(secret, "meta-data")).status_code == 200
    assert (await guests.get("B" * 32, "meta-data")).status_code == 404

    async def far(_: EventStore) -> int:
        return 10**9

    monkeypatch.setattr(EventStore, "last_position", far)
    behind = await guests.get("B" * 32, "meta-data")
    assert (behind.status_code, behind.headers["Retry-After"]) == (503, "1")
    assert (await guests.get(secret, "meta-data")).status_code == 200, "what they have they tell"


async def test_every_refusal_is_the_same(guests: Guests) -> None:
    ref = await placed(guests)
    secret = await guests.secret(ref)
    assert (await guests.get(secret, "meta-data")).status_code == 200
    refused = [
        await guests.get("A" * 32, "meta-data"),
        await guests.get("A" * 32, "user-data"),
        await guests.get("A" * 32, "nothing"),
        await guests.get(secret, "nothing"),
        await guests.get(secret, "meta-data/"),
        await guests.get(secret[:-1], "meta-data"),
        await guests.get(ref.id, "meta-data"),
        await guests.http.get("/"),
        await guests.http.get(f"/{secret}"),
        await guests.http.get(f"/{secret}/phone-home"),
        await guests.http.post(f"/{secret}/meta-data"),
        await guests.http.put(f"/{secret}/meta-data"),
        await guests.http.delete(f"/{secret}/meta-data"),
        await guests.http.post(f"/{'A' * 32}/phone-home"),
        await guests.http.get(f"/{secret}/meta-data", headers={"X-Forwarded-For": "192.0.2.1"}),
        await guests.http.get(f"/{secret}/meta-data", headers={"Forwarded": "for=192.0.2.1"}),
    ]

    def whole(answer: httpx.Response) -> tuple[Any, ...]:
        headers = {k: v for k, v in answer.headers.items() if k != "date"}
        return answer.status_code, headers, answer.content

    assert {json.dumps(whole(each)[:2]) for each in refused} == {json.dumps(whole(refused[0])[:2])}
    assert {each.content for each in refused} == {b"not found\n"}
    assert refused[0].status_code == 404


async def test_each_boot_has_a_secret_of_its_own(guests: Guests) -> None:
    cloud = guests.cloud
    ref = await cloud.running()
    assert await guests.opens(ref, 1)
    assert not await guests.opens(ref, 2)
    await cloud.ask(ref, vm.RestartVm)
    assert await guests.opens(ref, 2)
    assert await guests.opens(ref, 1)  # the old domain may still be there
    await cloud.report(ref, Power.ON, 2)
    await cloud.caught_up()
    assert not await guests.opens(ref, 1)
    await cloud.report(ref, Power.OFF, cause="guest")
    await cloud.caught_up()
    assert not await guests.opens(ref, 2), "nothing while it is off"
    await cloud.ask(ref, vm.StartVm)
    assert await guests.opens(ref, 2)
    assert await guests.opens(ref, 3)
    await cloud.ask(ref, vm.DeleteVm)
    assert await guests.opens(ref, 3)
    await cloud.report(ref, Power.ABSENT)
    await cloud.caught_up()
    assert not await guests.opens(ref, 3)


async def test_rows_that_say_off_may_be_older_than_the_log(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start of the VM may be in the log, and its guest be faster than the read models."""
    ref = await guests.cloud.running()
    await guests.cloud.report(ref, Power.OFF, cause="guest")
    await guests.cloud.caught_up()
    secret, find = await guests.secret(ref), seeds.find
    old = await find(guests.pool, secret)
    assert old[0] is not None and old[0].access.off
    await guests.cloud.ask(ref, vm.StartVm)
    answers: Iterator[tuple[Seed | None, int]] = itertools.repeat(old)

    async def behind(pool: Pool, secret: str) -> tuple[Seed | None, int]:
        return next(answers, None) or await find(pool, secret)

    monkeypatch.setattr(seeds, "find", behind)
    with monkeypatch.context() as patched:
        patched.setattr(guest_answers, "PATIENCE", 0.1)
        unsure = await guests.get(secret, "meta-data")
    assert (unsure.status_code, unsure.headers.get("Retry-After")) == (503, "1")
    answers = iter([old])
    assert (await guests.get(secret, "meta-data")).status_code == 200


async def test_a_destroyed_key_ends_it(guests: Guests) -> None:
    id_ = "11111111-2222-4333-8444-666666666666"
    sealed = await guests.cloud.vault.seal(id_, "x")
    ref = await placed(guests, id_=id_, user_data=sealed)
    secret = await guests.secret(ref)
    assert (await guests.get(secret, "user-data")).text == "x"
    await guests.cloud.vault.destroy(id_)
    assert (await guests.get(secret, "user-data")).status_code == 404


async def test_the_listener_waits_for_its_address() -> None:
    taken = listener.bind("127.0.0.1", 0)
    port = taken.getsockname()[1]
    waiting = asyncio.create_task(listener.bound("test", "127.0.0.1", port))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    taken.close()
    (await waiting).close()


async def test_the_process_ends_clean_on_sigterm(guests: Guests) -> None:
    env = {
        **os.environ,
        "NEBULA_NATS_URL": guests.cloud.nats.url,
        "NEBULA_HOME": str(guests.cloud.nats.home),
        "NEBULA_SEED_HOST": "127.0.0.1",
        "NEBULA_SEED_PORT": "0",
    }
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        command = [sys.executable, "-m", "cli.local.role", "guest-data"]
        process = await asyncio.create_subprocess_exec(
            *command, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        assert process.stdout is not None
        async for line in process.stdout:
            if b"data source listens" in line:
                break
        process.send_signal(signal_)
        rest = await process.stdout.read()
        assert await process.wait() == 0, rest.decode()
        assert b"Traceback" not in rest


@pytest.fixture
def bed(tmp_path: Path) -> Path:
    """A root of its own for the hook: programs first, and the files that it reads."""
    for folder in ("bin", "run/cloud-init", "var/lib/cloud/data", "etc/ssh"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "bin/cloud-init").write_text(f"#!{sys.executable}\n")
    (tmp_path / "bin/cloud-init").chmod(0o755)
    (tmp_path / "var/lib/cloud/data/instance-id").write_text("i-1\n")
    (tmp_path / "etc/ssh/ssh_host_ed25519_key.pub").write_text(SSH_KEY)
    return tmp_path


async def test_the_hook_as_a_guest_runs_it(bed: Path) -> None:
    """It ends soon, waits beside until cloud-init is done, and is understood."""
    called: asyncio.Queue[bytes] = asyncio.Queue()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next(int(line[15:]) for line in head.splitlines() if line.startswith("content-length:"))
        called.put_nowait(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    text = phone_home.hook(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/s/phone-home")
    for path in ("/run/cloud-init", "/var/lib/cloud", "/etc/ssh/"):
        text = text.replace(path, f"{bed}{path}")
    script = bed / "hook"
    script.write_text(text.removeprefix("#cloud-boothook").lstrip())  # as cloud-init does
    script.chmod(0o755)
    environment = {"PATH": f"{bed}/bin:{os.environ['PATH']}", "http_proxy": "http://127.0.0.1:9/"}
    async with server:
        process = await asyncio.create_subprocess_exec(
            str(script), env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        printed, _ = await process.communicate()  # until nobody has its output any more, as cloud-init waits
        assert (process.returncode, printed) == (0, b"")
        assert called.empty()
        (bed / "run/cloud-init/result.json").write_text("{}")
        call = phone_home.parse(await asyncio.wait_for(called.get(), 60))
    assert call.instance_id == "i-1"
    assert call.boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert [key.key for key in call.host_keys] == [KEY]
