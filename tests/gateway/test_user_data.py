"""User-data of any bytes: in base64 over HTTP, without a byte order mark, with a word about what a guest ignores."""

import base64
import gzip
from typing import Any

import pytest

from domain.contract import Power
from domain.vm import evolve
from eventstore.log.envelope import Ref
from eventstore.log.store import EventStore
from eventstore.vault.vault import Vault
from tests.gateway.platform import SPEC, VMS, Platform
from tests.waiting import eventually

CONFIG = b"#cloud-config\nhostname: web-1\n"


async def held(api: Platform, vm: str) -> bytes:
    """What its guest will be given."""
    state = (await EventStore(api.side.nc).load(Ref("default", "vm", vm), evolve)).state
    assert state is not None and state.user_data is not None
    return await Vault.of(api.side.nc, api.side.home / "master.key").unsealed(state.user_data)


def encoded(data: bytes) -> str:
    return base64.encodebytes(data).decode()  # with line breaks, as many programs make it


async def test_any_bytes_are_taken_in_base64(api: Platform) -> None:
    data = gzip.compress(CONFIG)
    made = await api.create(user_data_base64=encoded(data))
    assert made["vm"]["has_user_data"]
    assert made["operation"]["warnings"] == made["vm"]["warnings"] == []
    assert await held(api, made["vm"]["id"]) == data


async def test_a_byte_order_mark_is_taken_away(api: Platform) -> None:
    made = await api.create(user_data="\ufeff" + CONFIG.decode())
    other = await api.create(user_data_base64=encoded(CONFIG.decode().encode("utf-16")))
    for each in (made, other):
        assert await held(api, each["vm"]["id"]) == CONFIG
        assert each["operation"]["warnings"] == []


async def test_what_a_guest_would_ignore_is_said_wherever_one_looks(api: Platform) -> None:
    made = await api.running(user_data="hostname: web-1 # hunter2\n")
    vm, operation = made["vm"]["id"], made["operation"]
    (warning,) = operation["warnings"]
    assert warning["code"] == "user_data_unknown"
    assert "hunter2" not in str(made)
    assert (await api.get(f"/v1/operations/{operation['id']}"))["warnings"] == [warning]
    assert (await api.get(f"{VMS}/{vm}"))["warnings"] == made["vm"]["warnings"] == [warning]

    again = await api.call("POST", f"{VMS}/{vm}/rebuild", {"user_data": "#cloud-config\na: ["})
    assert [each["code"] for each in again.json()["operation"]["warnings"]] == ["user_data_malformed"]
    assert [each["code"] for each in again.json()["vm"]["warnings"]] == ["user_data_malformed"]


@pytest.mark.parametrize("way", ["user_data", "user_data_base64"])
async def test_a_rebuild_takes_user_data_away_where_that_is_asked_for(api: Platform, way: str) -> None:
    made = await api.running(user_data="hello")
    vm = f"{VMS}/{made['vm']['id']}"
    kept = (await api.call("POST", f"{vm}/rebuild", {})).json()["vm"]
    assert (kept["has_user_data"], len(kept["warnings"])) == (True, 1)
    await api.report(kept["id"], Power.ON, boots=2)
    await eventually(lambda: api.side.has("default", "vm", kept["id"], "VmStarted", 2), "it is rebuilt")
    gone = (await api.call("POST", f"{vm}/rebuild", {way: ""})).json()["vm"]
    assert (gone["has_user_data"], gone["warnings"]) == (False, [])
    assert await held(api, kept["id"]) == b""


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"user_data_base64": "no base64!"}, "user_data_base64"),
        ({"user_data_base64": "YQ"}, "user_data_base64"),
        ({"user_data_base64": "YWFh===="}, "user_data_base64"),
        ({"user_data_base64": 7}, "user_data_base64"),
        ({"user_data_base64": encoded(bytes(64 * 1024 + 1))}, "user_data_base64"),
        ({"user_data_base64": "YQ==", "user_data": "#!/bin/sh"}, "(body)"),
    ],
)
async def test_what_is_no_user_data_is_refused(api: Platform, body: dict[str, Any], field: str) -> None:
    answer = await api.call("POST", VMS, {"name": "web-1", "image": "base", **SPEC, **body})
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]
