"""Where a node's guests find their data is the operator's to say, over HTTP and on the command line."""

import asyncio
import json
import os
import sys
import uuid
from pathlib import Path

import pytest

from domain.contract import Power
from tests.gateway.platform import SPEC, VMS, Platform
from tests.waiting import eventually

PATH = "/v1/nodes/host-1"


async def seed_url_of(api: Platform, vm: str) -> str:
    wanted = await api.side.wanted(vm)
    return wanted.seed_url if wanted is not None else ""


async def said(api: Platform, url: str) -> dict[str, str]:
    """The new URL, as the log has it."""
    newest = [event for event in await api.side.events("system", "node", "host-1") if "SeedUrlSet" in event.type][-1]
    found: dict[str, str] = json.loads(newest.body)
    assert found["seed_url"] == url
    return found


async def test_it_is_told_to_guests_from_their_next_start_on(api: Platform) -> None:
    vm = (await api.running(name="seeded"))["vm"]["id"]
    url = f"http://192.0.2.77:8775/{uuid.uuid4().hex}/"
    answer = await api.call("PATCH", f"{PATH}?wait=30s", {"seed_url": url})
    assert (answer.status_code, answer.json()["operation"]["status"]) == (200, "succeeded"), answer.text
    assert answer.json()["operation"]["verb"] == "set-seed-url"
    await said(api, url)
    await api.call("POST", f"{VMS}/{vm}/stop", {"force": True})
    await api.report(vm, Power.OFF, boots=1)

    async def off() -> bool:
        return bool((await api.get(f"{VMS}/{vm}"))["phase"] == "stopped")

    await eventually(off, "it is off")
    assert (await api.call("POST", f"{VMS}/{vm}/start")).status_code == 202

    async def told() -> bool:
        return (await seed_url_of(api, vm)).startswith(url)

    await eventually(told, "its next boot finds the new one")


async def test_a_repeat_changes_nothing(api: Platform) -> None:
    body, key = {"seed_url": "http://192.0.2.78:8775/"}, str(uuid.uuid4())
    first = await api.call("PATCH", PATH, body, idempotency_key=key)
    await api.call("PATCH", PATH, {"seed_url": "http://192.0.2.79:8775/"})
    again = await api.call("PATCH", PATH, body, idempotency_key=key)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
    assert again.json()["operation"]["id"] == first.json()["operation"]["id"]
    await said(api, "http://192.0.2.79:8775/")


@pytest.mark.parametrize(
    "url",
    [
        *("", "192.0.2.1", "http://192.0.2.1:8775", "https://192.0.2.1/", "http://user@192.0.2.1/", "ftp://a/"),
        *("http://a b/", "http://a/;b/", "http://a/%41/", "http://a/?b", "http://a/#b/", "http://" + "a" * 300 + "/"),
        *(None, 5, ["http://a/"]),
    ],
)
async def test_what_is_no_base_url_is_refused(api: Platform, url: object) -> None:
    answer = await api.call("PATCH", PATH, {"seed_url": url})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), answer.text
    assert {error["field"] for error in answer.json()["errors"]} == {"seed_url"}


async def test_a_node_that_is_not_there(api: Platform) -> None:
    answer = await api.call("PATCH", "/v1/nodes/nobody", {"seed_url": "http://192.0.2.1:8775/"})
    assert (answer.status_code, answer.json()["code"]) == (404, "node_not_found")
    answer = await api.call("PATCH", PATH, {})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "seed_url")


async def nebula(api: Platform, home: Path, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "cli.main", "--url", api.url, "node", "set-seed-url", *arguments]
    environment = {**os.environ, "NEBULA_HOME": str(home)}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=environment)
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_on_the_command_line(api: Platform, tmp_path: Path) -> None:
    (done, out, err), (refused, _, why), (nobody, _, none) = await asyncio.gather(
        nebula(api, tmp_path, "host-1", "http://192.0.2.80:8775/", "--output", "json"),
        nebula(api, tmp_path, "host-1", "192.0.2.80"),
        nebula(api, tmp_path, "nobody", "http://192.0.2.80:8775/"),
    )
    assert done == 0, err
    assert (json.loads(out)["operation"]["verb"], json.loads(out)["node"]["id"]) == ("set-seed-url", "host-1")
    await said(api, "http://192.0.2.80:8775/")
    assert (refused, "seed_url" in why) == (1, True), why
    assert (nobody, "(node_not_found)" in none) == (1, True), none
    made = await api.call("POST", VMS, {"name": "web-1", "image": "base", **SPEC})

    async def told() -> bool:
        return (await seed_url_of(api, made.json()["vm"]["id"])).startswith("http://192.0.2.80:8775/")

    await eventually(told, "new guests find it")
