"""The overview in a browser: what needs somebody, what is used, the log as it flows, what to do in a new cloud."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from playwright.async_api import Browser, Page, Route, expect

from tests.console.bed import IMAGE, Bed, needs_browser
from tests.waiting import eventually

pytestmark = needs_browser
SIZE = {"image": IMAGE, "vcpus": 1, "memory_mib": 64, "disk_gib": 1}


def needs(page: Page) -> Any:
    return page.get_by_role("region", name="Needs somebody")


async def instead(page: Page, path: str, change: Any) -> None:
    """The page gets the answers to a path as `change` makes them."""

    async def handle(route: Route) -> None:
        answer = await route.fetch()
        await route.fulfill(response=answer, json=change(await answer.json()))

    await page.route(re.compile(rf"^[^?]*{path}(\?.*)?$"), handle)


async def test_somebody_without_a_role_is_not_refused(chromium: Browser, cloud: Bed) -> None:
    await cloud.send("POST", "/v1/users?wait=30s", {"id": "new", "name": "New"})
    body = {"name": "of-somebody-new", "principal": "user:new"}
    secret = (await cloud.send("POST", "/v1/tokens?wait=30s", body))["secret"]
    page = await cloud.page(chromium)
    refused: list[str] = []
    page.on("response", lambda answer: refused.append(answer.url) if answer.status == 403 else None)
    await page.goto("/console/")
    await page.get_by_label("Token").fill(secret)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("region", name="Begin here")).to_contain_text("or gives you a role")
    await expect(page.get_by_role("alert")).to_have_count(0)
    await expect(page.get_by_text("Not connected")).to_be_visible()
    assert len(refused) <= 1, refused


async def test_what_is_promised_and_what_is_used(chromium: Browser, cloud: Bed) -> None:
    made = await cloud.send("POST", "/v1/projects/default/vms?wait=30s", {"name": "uses", **SIZE, "vcpus": 2})
    node = made["vm"]["node"]
    page = await cloud.signed_in(chromium, "admin", "/console/")
    host = page.locator("article.host", has=page.get_by_role("link", name=node, exact=True))
    cpu = host.get_by_role("meter", name="CPU")
    await expect(cpu).to_have_attribute("aria-valuetext", re.compile(r"^2 of 32 promised, \d+(\.\d)? used$"))
    await expect(host.get_by_role("meter", name="Memory")).to_have_attribute("aria-valuetext", re.compile("used$"))
    await expect(host.get_by_role("meter", name="Disk")).to_have_attribute("aria-valuetext", re.compile("promised"))
    position = made["operation"]["position"]
    await page.goto(f"/console/?at={position}")
    await expect(host.get_by_role("meter", name="CPU")).to_have_attribute("aria-valuetext", re.compile("promised$"))


async def test_tokens_that_end_soon_are_said(chromium: Browser, cloud: Bed) -> None:
    user = await cloud.send("POST", "/v1/users?wait=30s", {"id": "soon", "name": "Soon"})
    assert user["user"]["id"] == "soon"

    async def issue(name: str, days: float) -> str:
        ends = (datetime.now(UTC) + timedelta(days=days)).isoformat()
        body = {"name": name, "principal": "user:soon", "expires_at": ends}
        return str((await cloud.send("POST", "/v1/tokens?wait=30s", body))["secret"])

    secret = await issue("ends-tomorrow", 1)
    await issue("ends-in-a-month", 30)
    page = await cloud.signed_in(chromium, "admin", "/console/")
    await expect(needs(page)).to_contain_text("Token ends-tomorrow of user:soon ends in")
    await expect(needs(page)).not_to_contain_text("ends-in-a-month")
    own = await cloud.page(chromium)
    await own.goto("/console/")
    await own.get_by_label("Token").fill(secret)
    await own.get_by_role("button", name="Sign in").click()
    await expect(needs(own)).to_contain_text("ends-tomorrow")
    await cloud.send("POST", "/v1/users?wait=30s", {"id": "other", "name": "Other"})
    body = {
        "name": "of-another",
        "principal": "user:other",
        "expires_at": (datetime.now(UTC) + timedelta(hours=5)).isoformat(),
    }
    await cloud.send("POST", "/v1/tokens?wait=30s", body)
    await own.reload()
    await expect(needs(own)).to_contain_text("ends-tomorrow")
    await expect(needs(own)).not_to_contain_text("of-another")


async def test_the_state_of_the_platform_in_words(chromium: Browser, cloud: Bed) -> None:
    """Each sort of trouble has its line; a viewer, who gets only the status, sees none of it."""
    page = await cloud.signed_in(chromium, "admin")
    since = "2026-01-31T12:00:00Z"
    wrong = {
        "status": "degraded",
        "managers": [
            {"name": "notary", "failing_since": since, "last_error": "the log differs from the signed one"},
            {"name": "placement", "failing_since": None, "last_error": None},
        ],
        "parked": 3,
        "parked_more": 2,
        "malformed": {"wanted": {"count": 1, "last_reason": "no JSON"}},
        "clocks_off": [{"node": "sim-1", "offset_seconds": -301.25}],
        "projections": {"status": "unavailable", "detail": "they stand still", "since": since},
    }
    await instead(page, "/healthz", lambda health: {**health, **wrong})
    late = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()

    def lost(nodes: Any) -> Any:
        first, *others = nodes["items"]
        return {**nodes, "items": [{**first, "lost": True, "status": "lost", "last_seen": late}, *others]}

    def overdue(operations: Any) -> Any:
        one: dict[str, Any] = {
            **{"id": "00000000-0000-4000-8000-000000000000", "verb": "stop", "kind": "vm", "resource": "gone-vm"},
            **{"project": "default", "status": "running", "actor": "user:a", "request_id": None, "accepted_at": late},
            **{"ended_at": None, "deadline": late, "position": 1, "problem": None, "progress": None},
            **{"warnings": [], "events": []},
        }
        return {**operations, "items": [one]}

    await instead(page, "/v1/nodes", lost)
    await instead(page, "/v1/operations", overdue)
    await page.goto("/console/")
    for text in (
        "The manager notary has failed since 2026-01-31",
        "the log differs from the signed one",
        "3 messages parked and 2 that found no room",
        "1 malformed message of wanted",
        "differs by -301.3 s",
        "The read models are not kept up to date since 2026-01-31",
        "was last seen 5 min ago: 0 VMs on it",
        "Stop of gone-vm should have ended 5 min ago",
    ):
        await expect(needs(page)).to_contain_text(text)
    await expect(needs(page)).not_to_contain_text("placement")
    await cloud.allow(viewer="viewer@default")
    viewer = await cloud.signed_in(chromium, "viewer", "/console/")
    await expect(needs(viewer)).to_contain_text("Nothing: all is well.")


async def test_an_unavailable_platform_is_said_with_its_parts(chromium: Browser, cloud: Bed) -> None:
    page = await cloud.signed_in(chromium, "admin")

    async def away(route: Route) -> None:
        body = {"status": "unavailable", "commands": {"status": "unavailable", "detail": "no handlers answer"}}
        await route.fulfill(status=503, headers={"Retry-After": "1"}, json=body)

    await page.route("**/healthz", away)
    await page.goto("/console/")
    await expect(needs(page)).to_contain_text("Commands are not decided no handlers answer")


async def test_a_vm_that_needs_somebody_comes_and_goes(chromium: Browser, cloud: Bed) -> None:
    page = await cloud.signed_in(chromium, "admin", "/console/")
    await expect(needs(page)).to_be_visible()
    for name in ("fills-one", "fills-the-other"):
        large = {"name": name, **SIZE, "memory_mib": 100_000}
        await cloud.send("POST", "/v1/projects/default/vms?wait=30s", large)
    made = await cloud.send("POST", "/v1/projects/default/vms", {**large, "name": "too-large"})
    await expect(needs(page).get_by_role("link", name="too-large")).to_be_visible()
    await cloud.send("DELETE", f"/v1/projects/default/vms/{made['vm']['id']}?wait=30s")
    await expect(needs(page).get_by_role("link", name="too-large")).to_have_count(0)


async def positions(page: Page) -> list[int]:
    texts = await page.locator(".timeline li").all_inner_texts()
    return [int(found[1]) for text in texts if (found := re.search(r"position (\d+)", text))]


async def test_the_log_flows_and_waits_for_its_reader(chromium: Browser, cloud: Bed) -> None:
    tag = "flows"
    await cloud.send("POST", "/v1/tags?wait=30s", {"id": tag, "name": "0"})
    page = await cloud.signed_in(chromium, "admin", "/console/")
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    log = page.get_by_role("region", name="The log, as it grows")

    async def rename(name: str) -> int:
        return int((await cloud.send("PATCH", f"/v1/tags/{tag}?wait=30s", {"name": name}))["operation"]["position"])

    first = await rename("1")
    await eventually(lambda: shows(page, first), "the event")
    await log.get_by_role("button", name="Pause").click()
    before = await positions(page)
    paused = await rename("2")
    await expect(log.get_by_role("status")).to_have_text("1 new event waits")
    assert await positions(page) == before
    await log.get_by_role("button", name="Pause").click()
    await eventually(lambda: shows(page, paused), "the event, after the pause")

    await log.locator(".timeline li").nth(1).hover()
    before = await positions(page)
    hovered = [await rename("3"), await rename("4")]
    await expect(log.get_by_role("status")).to_have_text("2 new events wait")
    assert await positions(page) == before, "what one reads does not move"
    await page.get_by_role("heading", name="Overview").hover()
    await eventually(lambda: shows(page, hovered[1]), "both events")
    wanted = [event["position"] for event in (await cloud.send("GET", "/v1/events?order=desc&limit=20"))["items"]]
    assert await positions(page) == wanted

    await log.locator(".timeline li").first.get_by_role("button").focus()
    focused = await rename("5")
    await expect(log.get_by_role("status")).to_have_text("1 new event waits")
    await page.get_by_role("link", name="All operations").focus()
    await eventually(lambda: shows(page, focused), "the event, after the focus")


async def shows(page: Page, position: int) -> bool:
    return position in await positions(page)


async def test_a_count_that_is_bounded_says_so(chromium: Browser, cloud: Bed) -> None:
    """There are more than a page of VMs: no further page is read, but those that need somebody are."""
    made = await cloud.send("POST", "/v1/projects/default/vms?wait=30s", {"name": "one-of-many", **SIZE})
    page = await cloud.signed_in(chromium, "admin")
    asked: list[str] = []

    def many(found: Any) -> Any:
        if len(found["items"]) == 0:
            return found
        copies = [{**made["vm"], "id": f"{number:08}-0000-4000-8000-000000000000"} for number in range(500)]
        return {**found, "items": copies, "next_page_token": "more"}

    async def handle(route: Route) -> None:
        asked.append(route.request.url)
        if "phase=failed" in route.request.url:
            broken = {**made["vm"], "name": "found-by-phase", "phase": "failed"}
            broken["id"] = "ffffffff-0000-4000-8000-000000000000"
            await route.fulfill(json={"items": [broken], "next_page_token": None, "position": 1})
            return
        answer = await route.fetch()
        await route.fulfill(response=answer, json=many(await answer.json()))

    await page.route(re.compile(r"/v1/projects/default/vms(\?.*)?$"), handle)
    await page.goto("/console/")
    machines = page.get_by_role("region", name="Virtual machines")
    await expect(machines).to_contain_text("500+")
    await expect(machines).to_contain_text("the first 500 are counted")
    await expect(needs(page).get_by_role("link", name="found-by-phase")).to_be_visible()
    assert not [url for url in asked if "page_token" in url]


async def test_a_new_cloud_says_what_to_do_first(chromium: Browser, cloud: Bed) -> None:
    page = await cloud.signed_in(chromium, "admin")
    nothing: dict[str, Any] = {"items": [], "next_page_token": None, "position": 1}
    empty = {"/v1/projects", "/v1/nodes", "/v1/images"}
    for each in sorted(empty):
        await instead(page, each, lambda found, path=each: nothing if path in empty else found)
    await page.goto("/console/")
    begin = page.get_by_role("region", name="Begin here")
    steps = begin.get_by_role("listitem")
    await expect(steps).to_have_count(4)
    await expect(steps.nth(0)).to_contain_text("Next A project")
    await expect(begin.get_by_role("link", name="Create a project")).to_be_visible()
    await expect(begin.get_by_role("link", name="Add a host")).to_be_visible()
    await expect(begin.get_by_role("link", name="Register an image")).to_be_visible()
    empty -= {"/v1/projects", "/v1/nodes"}
    await page.reload()
    await expect(steps.nth(1)).to_contain_text("Done A host")
    await expect(steps.nth(2)).to_contain_text("Next An image")
    empty.clear()
    await page.reload()
    await begin.get_by_role("link", name="Create a VM in").click()
    await expect(page.get_by_role("heading", name="Virtual machines", exact=True)).to_be_visible()
    await cloud.send("POST", "/v1/projects/default/vms?wait=30s", {"name": "the-first", **SIZE})
    await page.goto("/console/")
    await expect(page.get_by_role("region", name="Virtual machines")).to_contain_text("1")
    await expect(begin).to_have_count(0)
    await cloud.allow(viewer="viewer@default")
    viewer = await cloud.signed_in(chromium, "viewer")
    await instead(viewer, "/v1/projects", lambda _: nothing)
    await viewer.goto("/console/")
    await expect(viewer.get_by_role("region", name="Begin here")).to_contain_text("An operator makes one")
    await expect(viewer.get_by_role("link", name="Create a project")).to_have_count(0)


async def test_many_changes_are_read_a_few_times_a_second(chromium: Browser, cloud: Bed) -> None:
    """The first event is read without delay, and a storm of them does not become a storm of reads."""
    page = await cloud.signed_in(chromium, "admin", "/console/")
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/v1/projects?" in request.url else None)
    for number in range(40):
        await cloud.send("PATCH", "/v1/projects/default", {"name": f"Name {number}"})
    await cloud.send("PATCH", "/v1/projects/default?wait=30s", {"name": "The last name"})
    await expect(
        page.get_by_role("combobox", name="Project").get_by_role("option", name="The last name")
    ).to_have_count(1)
    await cloud.send("PATCH", "/v1/projects/default?wait=30s", {"name": "Default"})
    assert 0 < len(asked) < 80, "not two reads for each event"
