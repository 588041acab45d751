"""Somebody types addresses with ids of other projects: each page says and does what it does for what there is not."""

import re
import uuid
from collections.abc import AsyncIterator, Mapping
from urllib.parse import unquote

import pytest
from playwright.async_api import Browser, Page, Request, expect

from tests.console.bed import IMAGE, Bed, needs_browser
from tests.console.crawl import addresses, then

pytestmark = needs_browser
#: The parameters that name something of a project, or of operators, with something that there never was.
NOBODYS = {
    **{"image": "image-there-not", "flavor": "flavor-there-not", "node": "node-0999", "user": "user-there-not"},
    **{"service_account": "robot-there-not", "source": "reports", "key": "key-there-not", "position": "999999999"},
}

#: What the frame around each page reads: who has signed in, the projects, the line of time, when a moment was.
FRAME = re.compile(r"/v1/((me|session|login)$|marks\?|projects\?|events\?from=(\d+)&to=\3&limit=1$)")


@pytest.fixture(scope="module")
async def theirs(shared: Bed) -> AsyncIterator[Mapping[str, str]]:
    """What there is in another project, and in the cloud."""
    send = shared.send
    await send("POST", "/v1/projects?wait=30s", {"id": "theirs", "name": "Theirs"})
    sizes = {"vcpus": 1, "memory_mib": 64, "disk_gib": 1}
    flavor = {"id": "flavor-of-theirs", "name": "F", "project": "theirs", **sizes}
    await send("POST", "/v1/flavors?wait=30s", flavor)
    await send(
        "POST", "/v1/images?wait=30s", {"id": "image-of-theirs", "name": "I", "project": "theirs", "source": "/no"}
    )
    vm = await send("POST", "/v1/projects/theirs/vms?wait=60s", {"name": "theirs-1", "image": IMAGE, **sizes})
    await send("POST", "/v1/users?wait=30s", {"id": "user-of-theirs", "name": "U"})
    await send("POST", "/v1/service-accounts?wait=30s", {"id": "robot-of-theirs", "name": "R"})
    node = (await send("GET", "/v1/nodes"))["items"][0]["id"]
    yield {
        **{"project": "theirs", "vm": vm["vm"]["id"], "image": "image-of-theirs", "flavor": "flavor-of-theirs"},
        **{"user": "user-of-theirs", "service_account": "robot-of-theirs", "node": node},
        **{"operation": vm["operation"]["id"], "position": str(vm["operation"]["position"])},
        **{"source": "reports", "key": "key-of-theirs"},
    }
    await send("DELETE", f"/v1/projects/theirs/vms/{vm['vm']['id']}?wait=30s")
    for path in ("flavors/flavor-of-theirs", "images/image-of-theirs", "projects/theirs"):
        await send("DELETE", f"/v1/{path}?wait=30s")
    for path in ("users/user-of-theirs", "service-accounts/robot-of-theirs"):
        await send("DELETE", f"/v1/{path}?wait=30s")


async def told(page: Page, address: str, ids: Mapping[str, str]) -> tuple[str, str, list[str]]:
    """What a page says, its title, and which calls it made with which answers; without the ids that were guessed."""
    calls: list[Request] = []

    def asked(request: Request) -> None:
        if "/v1/" in request.url and "/feed" not in request.url:
            calls.append(request)

    page.on("request", asked)
    await page.goto(address)
    await expect(page.locator("#main h1, #main h2").first).to_be_visible()
    await expect(page.locator("[aria-busy=true]")).to_have_count(0)
    page.remove_listener("request", asked)
    answers = []
    for call in calls:
        answer = await call.response()
        if answer is not None and not FRAME.search(call.url):
            answers.append(f"{call.method} {unquote(call.url)} {answer.status}")
    text = await page.locator("#main").inner_text()
    return plain(text, ids), plain(await page.title(), ids), sorted(plain(each, ids) for each in answers)


def plain(text: str, ids: Mapping[str, str]) -> str:
    """A text without the ids of an address, without ids of calls, and without positions and times, which go on."""
    for name, id_ in sorted(ids.items(), key=lambda each: -len(each[1])):
        text = re.sub(rf"\b{re.escape(id_)}\b", f"<{name}>", text)
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>", text)
    text = re.sub(r"min_position=\d+", "min_position=<n>", text)
    return re.sub(r"\d\d:\d\d:\d\d|http://127.0.0.1:\d+", "", text)


async def test_a_guess_shows_what_nothing_shows(chromium: Browser, cloud: Bed, theirs: Mapping[str, str]) -> None:
    """All of the other project at its own address, and at an address of the own project; live and in the past."""
    await cloud.allow(viewer="viewer@default")
    page = await cloud.signed_in(chromium, "viewer", "/console/projects")
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    nothing = {**NOBODYS, "vm": str(uuid.uuid4()), "operation": str(uuid.uuid4())}
    wrong = {}
    for project, other in (("theirs", "not-there"), ("default", "default")):
        there = {**theirs, "project": project}
        nowhere = {**nothing, "project": other}
        tried, void = addresses(there), addresses(nowhere)
        for path in tried:
            if ":" not in path or (project == "default" and ":vm" not in path):
                continue
            names = re.findall(r":([a-z_]+)", path)
            ours, others = ({name: ids[name] for name in names} for ids in (there, nowhere))
            for at in ("", str(int(there["position"]) + 1)):
                first, second = (then(each, at) if at else each for each in (tried[path], void[path]))
                found, expected = await told(page, first, ours), await told(page, second, others)
                differ = [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]]
                if differ or "theirs-1" in found[0]:
                    wrong[f"{path} at {at or 'now'} in {project}"] = differ
    assert wrong == {}


async def test_the_calls_of_a_page_say_the_same(chromium: Browser, cloud: Bed, theirs: Mapping[str, str]) -> None:
    """Typed into the page's own program, with the cookie and the proof of its session."""
    await cloud.allow(viewer="viewer@default")
    page = await cloud.signed_in(chromium, "viewer", "/console/projects")
    script = """async ({method, path}) => {
        const {csrf} = await (await fetch('/v1/session')).json();
        const headers = {'X-CSRF-Token': csrf, 'Content-Type': 'application/json'};
        const body = method === 'POST' || method === 'PATCH' ? '{}' : null;
        const answer = await fetch(path, {method, headers, body});
        const {code, detail} = await answer.json();
        return [answer.status, code, detail];
    }"""
    nothing = {**NOBODYS, "vm": str(uuid.uuid4()), "project": "not-there"}
    for method, path in (
        *(("GET", "/v1/projects/{project}/vms/{vm}"), ("DELETE", "/v1/projects/{project}/vms/{vm}")),
        *(("POST", "/v1/projects/{project}/vms/{vm}/stop"), ("PATCH", "/v1/projects/{project}/vms/{vm}")),
        *(("GET", "/v1/projects/{project}/vms/{vm}/verbs"), ("GET", "/v1/projects/{project}/vms/{vm}/usage")),
        *(("GET", "/v1/images/{image}"), ("DELETE", "/v1/images/{image}"), ("GET", "/v1/flavors/{flavor}")),
        *(("GET", "/v1/nodes/{node}"), ("POST", "/v1/nodes/{node}/cordon"), ("GET", "/v1/users/{user}")),
        *(("POST", "/v1/projects/{project}/vms"), ("POST", "/v1/projects/{project}/vm-preview")),
    ):
        said = []
        for ids in (theirs, nothing):
            answer = await page.evaluate(script, {"method": method, "path": path.format_map(ids)})
            said.append([answer[0], answer[1], plain(str(answer[2]), ids)])
        assert said[0] == said[1], (method, path)
        assert said[0][0] in (403, 404), (method, path)


async def test_no_socket_is_opened_to_a_vm_of_others(chromium: Browser, cloud: Bed, theirs: Mapping[str, str]) -> None:
    await cloud.allow(member="member@default")
    page = await cloud.signed_in(chromium, "member", "/console/projects")
    script = """path => new Promise(done => {
        const socket = new WebSocket(`ws://${location.host}${path}`);
        socket.onopen = () => done('opened');
        socket.onclose = ({code, reason}) => done(`${code} ${reason}`);
    })"""
    for part in ("console", "vnc"):
        said = []
        for project, one in (("theirs", theirs["vm"]), ("not-there", str(uuid.uuid4()))):
            found = await page.evaluate(script, f"/v1/projects/{project}/vms/{one}/{part}")
            said.append(plain(found, {"project": project, "vm": one}))
        assert said[0] == said[1] != "opened"
    cloud.faults.clear()  # the browser says that it was refused
