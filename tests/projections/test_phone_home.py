"""Guests phone home: who is believed, and how often."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from domain.vm import AbandonVm, RebuildVm
from projections.guest_data.rate import Rate
from runtime import subjects
from tests.projections.cloud import KEY, SSH_KEY
from tests.projections.guests import Guests, guests, placed

__all__ = ["guests"]


@pytest.fixture
async def heard(guests: Guests) -> AsyncIterator[list[dict[str, Any]]]:
    """Commands that arrive where handlers would be."""
    commands: list[dict[str, Any]] = []

    async def answer(msg: Any) -> None:
        commands.append({"subject": msg.subject, **json.loads(msg.data)})
        await msg.respond(b'{"ok": {}}')

    sub = await guests.cloud.nc.subscribe(subjects.COMMANDS, cb=answer)
    yield commands
    await sub.unsubscribe()


async def keygen(*args: str) -> str:
    process = await asyncio.create_subprocess_exec("ssh-keygen", *args, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


async def test_phone_home(guests: Guests, heard: list[dict[str, Any]], tmp_path: Path) -> None:
    files = {}
    for kind in ("rsa", "ecdsa", "ed25519"):
        files[kind] = tmp_path / kind
        await keygen("-q", "-t", kind, "-N", "", "-f", str(files[kind]))
    ref = await placed(guests)
    form = {f"pub_key_{kind}": file.with_suffix(".pub").read_text() for kind, file in files.items()}
    form |= {"instance_id": ref.id, "hostname": "web-1", "fqdn": "web-1.internal"}
    answer = await guests.phone(await guests.secret(ref), **form)
    assert answer.status_code == 200
    assert heard[0]["subject"] == subjects.command("default", "vm", "guest-ready")
    assert heard[0]["context"]["actor"] == f"guest:{ref.id}"
    assert heard[0]["args"]["vm"] == ref.id
    assert heard[0]["args"]["hostname"] == "web-1"
    for key, kind in zip(heard[0]["args"]["host_keys"], files, strict=True):
        printed = await keygen("-l", "-f", str(files[kind]))
        assert key["fingerprint"] == printed.split()[1]
        assert f"{key['type']} {key['key']}" in files[kind].with_suffix(".pub").read_text()


async def test_a_guest_speaks_for_the_boot_that_it_is_in(guests: Guests, heard: list[dict[str, Any]]) -> None:
    ref = await placed(guests)
    form = {"instance_id": ref.id, "boot_id": "0f1c-2"}
    assert (await guests.phone(await guests.secret(ref), **form)).status_code == 200
    await guests.cloud.do(ref, AbandonVm(**guests.cloud.asked(vm=ref.id)))
    await guests.cloud.do(ref, RebuildVm(**guests.cloud.asked(vm=ref.id, image="base")))
    later = await guests.cloud.vault.seed_secret(ref.id, 2)
    assert (await guests.phone(later, instance_id=f"{ref.id}-2")).status_code == 200
    assert [(each["args"]["boots"], each["args"]["boot"]) for each in heard] == [(1, "0f1c-2"), (2, None)]


async def test_phone_home_with_what_a_guest_lacks(guests: Guests, heard: list[dict[str, Any]]) -> None:
    ref = await placed(guests)
    form = {"pub_key_rsa": "N/A", "pub_key_ecdsa": "N/A", "pub_key_ed25519": SSH_KEY, "hostname": "N/A"}
    answer = await guests.phone(await guests.secret(ref), **form, instance_id=ref.id)
    assert answer.status_code == 200
    assert heard[0]["args"]["hostname"] is None
    assert [key["key"] for key in heard[0]["args"]["host_keys"]] == [KEY]


@pytest.mark.parametrize(
    "change",
    [
        {"instance_id": "another"},
        {"instance_id": ""},
        {"boot_id": "a b"},
        {"boot_id": "x" * 65},
        {"pub_key_ed25519": "ssh-ed25519 AAAA"},
        {"pub_key_ed25519": SSH_KEY.replace("ssh-ed25519", "ssh-rsa")},
        {"pub_key_rsa": SSH_KEY},
        {"pub_key_ed25519": SSH_KEY + "\n" + SSH_KEY},
        {"pub_key_ed25519": "<script>alert(1)</script>"},
    ],
)
async def test_phone_home_is_not_believed(guests: Guests, heard: list[dict[str, Any]], change: dict[str, str]) -> None:
    ref = await placed(guests)
    form = {"instance_id": ref.id, "hostname": "web-1", "pub_key_ed25519": SSH_KEY, **change}
    assert (await guests.phone(await guests.secret(ref), **form)).status_code == 400
    assert heard == []


async def test_phone_home_is_limited(guests: Guests, heard: list[dict[str, Any]]) -> None:
    ref = await placed(guests)
    secret = await guests.secret(ref)
    assert (await guests.phone(secret, instance_id=ref.id, hostname="x" * 70_000)).status_code == 413
    fields = {f"f{n}": "" for n in range(100)}
    assert (await guests.phone(secret, instance_id=ref.id, **fields)).status_code == 400
    assert (await guests.http.post(f"/{secret}/phone-home", content=b"\xff=\xfe")).status_code == 400
    assert heard == []


async def test_a_guest_that_asks_without_end_is_held_back(guests: Guests, heard: list[dict[str, Any]]) -> None:
    greedy, other = await placed(guests), await placed(guests)
    secret = await guests.secret(greedy)
    calls = [(await guests.phone(secret, instance_id=greedy.id)).status_code for _ in range(30)]
    assert calls[:10] == [200] * 10
    assert calls.count(429) > 15
    documents = [await guests.get(secret, "meta-data") for _ in range(150)]
    assert {answer.status_code for answer in documents} == {200, 429}
    assert all(answer.headers["retry-after"] for answer in documents if answer.status_code == 429)
    assert (await guests.get(await guests.secret(other), "meta-data")).status_code == 200


async def test_a_host_key_is_no_larger_than_a_key(guests: Guests, heard: list[dict[str, Any]]) -> None:
    ref = await placed(guests)
    parts = (b"ssh-rsa", b"\1\0\1", b"x" * 8000)
    large = base64.b64encode(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).decode()
    answer = await guests.phone(await guests.secret(ref), instance_id=ref.id, pub_key_rsa=f"ssh-rsa {large}")
    assert answer.status_code == 400
    assert heard == []


def test_a_rate_fills_again_and_forgets() -> None:
    rate = Rate(2, 0.5)
    assert [rate.allows("a", 0.0) for _ in range(3)] == [True, True, False]
    assert rate.allows("b", 0.0)
    assert [rate.allows("a", 2.0), rate.allows("a", 2.0)] == [True, False]


async def test_phone_home_is_tried_again_when_nobody_listens(guests: Guests) -> None:
    ref = await placed(guests)
    answer = await guests.phone(await guests.secret(ref), instance_id=ref.id)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
