"""The catalogue of images: registered with all that is said of them, imported from URLs, listed, kept apart."""

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from domain import image
from domain.image.kind import IMAGE
from eventstore.log.envelope import Ref
from eventstore.log.store import EventStore
from eventstore.vault.vault import Vault
from tests.gateway.platform import SPEC, VMS, Platform
from tests.handlers.platform import raw_disk
from tests.image_server import serving
from tests.waiting import eventually

DISK = raw_disk(2 * 1024**2)
SHA256, SHA512 = hashlib.sha256(DISK).hexdigest(), hashlib.sha512(DISK).hexdigest()


@pytest.fixture
def file(api: Platform) -> Path:
    path = api.side.home / "catalogue.raw"
    path.write_bytes(DISK)
    return path


async def registered(api: Platform, id_: str, source: object, **more: Any) -> dict[str, Any]:
    """The operation, ended."""
    answer = await api.call("POST", "/v1/images?wait=30s", {"id": id_, "source": str(source), **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["operation"]
    return found


async def test_all_that_is_said_of_an_image_is_shown(api: Platform, file: Path) -> None:
    said = {
        "name": "Debian 13",
        "sha512": SHA512,
        "distribution": "debian",
        "release": "13",
        "architecture": "aarch64",
        "description": "Small.\nOurs.",
    }
    assert (await registered(api, "said", file, **said))["status"] == "succeeded"
    found = await api.get("/v1/images/said")
    assert {name: found[name] for name in said} == said
    assert found["sha256"] == SHA256, "what was computed is recorded"
    assert (found["visibility"], found["project"], found["virtual_size_bytes"]) == ("public", None, len(DISK))
    assert found["created_at"] < found["updated_at"]


async def test_digests_that_are_given_have_to_match(api: Platform, file: Path) -> None:
    for name, length in (("sha256", 64), ("sha512", 128)):
        operation = await registered(api, f"wrong-{name}", file, **{name: "0" * length})
        assert operation["status"] == "failed"
        assert (operation["problem"]["code"], operation["problem"]["errors"][0]["field"]) == ("checksum_mismatch", name)


async def test_an_import_tells_how_far_it_is(api: Platform) -> None:
    size = 16 * 1024**2
    body = raw_disk(size)
    async with serving(body) as server:
        server.slow = 0.05  # 16 MiB in pieces of 64 KiB: some 12 s, of which it tells once in five
        made = (await api.call("POST", "/v1/images", {"id": "far", "source": server.url})).json()
        assert made["operation"]["progress"] is None
        target = f"/v1/operations/{made['operation']['id']}"
        seen = made["operation"]
        while seen["status"] in ("accepted", "running") and not seen["progress"]:
            await asyncio.sleep(0.2)
            seen = await api.get(target)
        assert seen["status"] == "running"
        assert seen["progress"]["bytes_total"] == size
        assert 0 < seen["progress"]["bytes_done"] < size
        server.slow = 0.0
        ended = await api.get(f"{target}?wait=60s")
    assert ended["status"] == "succeeded"
    assert ended["progress"] == {"bytes_done": size, "bytes_total": size}
    assert len(ended["events"]) < 10
    assert (await api.get("/v1/images/far"))["sha256"] == hashlib.sha256(body).hexdigest()


async def test_what_is_behind_a_url_and_no_image(api: Platform) -> None:
    async with serving(os.urandom(4096)) as server:
        operation = await registered(api, "noise", server.url)
    assert operation["problem"]["code"] == "image_invalid"


async def test_credentials_of_a_url_are_sealed_and_destroyed(api: Platform) -> None:
    async with serving(DISK) as server:
        url = server.url.replace("//", "//me:hunter2@") + "?X-Amz-Signature=hunter3&v=1"
        body = {"id": "sealed", "source": url, "sha256": SHA256}
        answer = await api.call("POST", "/v1/images?wait=30s", body)
        assert answer.json()["operation"]["status"] == "succeeded", answer.text
        assert server.requests[-1]["authorization"].startswith("Basic ")
    seen = await api.get("/v1/images/sealed")
    assert seen["source"] == server.url.replace("//", "//***@") + "?X-Amz-Signature=***&v=***"
    store, vault = EventStore(api.side.nc), Vault.of(api.side.nc, api.side.home / "master.key")
    loaded = await store.load(Ref("system", "image", "sealed"), image.evolve)
    assert loaded.state is not None
    sealed = loaded.state.sealed_source
    assert sealed is not None
    assert await vault.unseal(sealed) == url
    events = (await api.call("GET", "/v1/events?limit=200")).text
    for told in (answer.text, str(seen), str(IMAGE.stored.dump_json(loaded.state)), events):
        assert "hunter" not in told
    vm = (await api.create(image="sealed"))["vm"]["id"]
    wanted = await eventually(lambda: api.side.wanted(vm), "wanted document")
    assert wanted.image.source == url, "its node gets what it needs"


async def test_the_key_of_a_url_is_destroyed_with_its_image(api: Platform) -> None:
    async with serving(DISK) as server:
        for id_ in ("burnt", "refused"):
            digest = SHA256 if id_ == "burnt" else "0" * 64
            await registered(api, id_, f"{server.url}?sig=hunter4", sha256=digest)
    store, vault = EventStore(api.side.nc), Vault.of(api.side.nc, api.side.home / "master.key")
    keys = []
    for id_ in ("burnt", "refused"):
        loaded = await store.load(Ref("system", "image", id_), image.evolve)
        assert loaded.state is not None
        assert loaded.state.sealed_source is not None
        keys.append(loaded.state.sealed_source)
    gone = await api.call("DELETE", "/v1/images/burnt?wait=30s")
    assert gone.status_code in (200, 202), gone.text

    async def erased() -> bool:
        return not {key.key for key in keys} & await vault.held()

    await eventually(erased, "the key is destroyed with the image")


async def test_filters(api: Platform, file: Path) -> None:
    await registered(api, "filter-1", file, distribution="tests", release="1")
    await registered(api, "filter-2", file, distribution="tests", release="2", architecture="aarch64")

    async def found(query: str) -> list[str]:
        return [item["id"] for item in (await api.get(f"/v1/images?distribution=tests&{query}"))["items"]]

    assert await found("") == ["filter-1", "filter-2"]
    assert await found("release=2") == ["filter-2"]
    assert await found("architecture=x86_64&phase=available") == ["filter-1"]
    assert await found("phase=rejected") == []
    assert (await api.call("GET", "/v1/images?distribution=")).status_code == 400


async def test_an_image_of_a_project_is_not_there_for_others(api: Platform, file: Path) -> None:
    for project in ("mine", "theirs"):
        await api.call("POST", "/v1/projects", {"id": project, "name": project})
    await registered(api, "private", file, project="mine", sha256=SHA256)
    own = await api.get("/v1/images/private?project=mine")
    assert (own["visibility"], own["project"]) == ("project", "mine")
    assert (await api.get("/v1/images/private?project=theirs", 404))["code"] == "image_not_found"

    async def listed(project: str) -> set[str]:
        return {item["id"] for item in (await api.get(f"/v1/images?project={project}"))["items"]}

    assert "private" in await listed("mine")
    assert "private" not in await listed("theirs")
    assert "base" in await listed("theirs")
    body = {"name": "web", "image": "private", **SPEC}
    refused = await api.call("POST", "/v1/projects/theirs/vms", body)
    nobody = await api.call("POST", "/v1/projects/theirs/vms", {**body, "image": "nobody"})
    assert refused.status_code == nobody.status_code == 422
    assert refused.json()["detail"].replace("private", "nobody") == nobody.json()["detail"]
    assert (await api.call("POST", "/v1/projects/mine/vms", body)).status_code == 202
    gone = await api.call("DELETE", "/v1/projects/mine")
    assert (gone.status_code, gone.json()["code"]) == (409, "project_not_empty")


async def test_an_image_for_other_cpus_waits_for_a_node_that_has_them(api: Platform, file: Path) -> None:
    await registered(api, "arm", file, architecture="aarch64")
    made = await api.create(image="arm")
    vm = f"{VMS}/{made['vm']['id']}"

    async def considered_by_placement() -> Any:
        shown = await api.get(vm)
        return shown if shown["phase"] == "unschedulable" else None

    found = await eventually(considered_by_placement, "placement has looked at it")
    [considered] = [node for node in found["considered"] if node["node"] == "host-1"]
    assert considered["reason"] == "has x86_64 CPUs, and the image is for aarch64"
    assert (await api.get("/v1/nodes/host-1"))["architecture"] == "x86_64"
    await api.call("DELETE", vm)
    running = await api.running()
    answer = await api.call("POST", f"{VMS}/{running['vm']['id']}/rebuild", {"image": "arm"})
    assert (answer.status_code, answer.json()["code"]) == (422, "wrong_architecture")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": "No Id"}, "id"),
        ({"source": "base.raw"}, "source"),
        ({"source": 'json:{"driver":"nbd"}'}, "source"),
        ({"source": "nbd://host/disk"}, "source"),
        ({"source": None}, "source"),
        ({"source": "/images/\0"}, "source"),
        ({"source": "/images/\x1b[31m"}, "source"),
        ({"source": "/images/" + "a" * 256}, "source"),
        ({"source": "/" + "a/" * 2500}, "source"),
        ({"source": "http://xn--/"}, "source"),
        ({"source": "http://h:99999/"}, "source"),
        ({"source": "http://h:0/"}, "source"),
        ({"source": "http://h:+80/"}, "source"),
        ({"source": "http://h:/"}, "source"),
        ({"source": "http://:80/"}, "source"),
        ({"source": "http://::1/"}, "source"),
        ({"source": "http://fe80::1/"}, "source"),
        ({"source": "http://[::1/"}, "source"),
        ({"source": "http://[fe80::1%25eth0]/"}, "source"),
        ({"source": "http://[v1.x]/"}, "source"),
        ({"source": "http://user@/"}, "source"),
        ({"source": "http://a..b/"}, "source"),
        ({"source": "http://a%00b/"}, "source"),
        ({"source": "http://\u2603.\u0301/"}, "source"),
        ({"source": "http://h\\i/"}, "source"),
        ({"source": "http://h/i#part"}, "source"),
        ({"source": "http://" + "a" * 64 + "/"}, "source"),
        ({"source": "file:///images/i"}, "source"),
        ({"source": "HTTP//h/i"}, "source"),
        ({"sha256": "0" * 63}, "sha256"),
        ({"sha256": "G" * 64}, "sha256"),
        ({"sha512": "0" * 64}, "sha512"),
        ({"sha512": 7}, "sha512"),
        ({"distribution": "De Bian"}, "distribution"),
        ({"distribution": ""}, "distribution"),
        ({"release": "a" * 64}, "release"),
        ({"release": 13}, "release"),
        ({"architecture": "riscv64"}, "architecture"),
        ({"architecture": "sparc"}, "architecture"),
        ({"description": "a\0b"}, "description"),
        ({"description": "x" * 2001}, "description"),
        ({"project": "No Project"}, "project"),
        ({"project": "nobody"}, "project"),
        ({"format": "vmdk"}, "format"),
        ({"name": ""}, "name"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_bad_input_names_the_field(api: Platform, file: Path, change: dict[str, Any], field: str) -> None:
    answer = await api.call("POST", "/v1/images", {"id": "bad", "source": str(file), **change})
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert (await api.get("/v1/images/bad", 404))["code"] == "image_not_found"
