"""The list of VMs in a browser: all projects, filters in the address, columns, many at the same time, keys, a phone."""

import re
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Route, expect

from tests.console.bed import IMAGE, Bed, needs_browser
from tests.waiting import eventually

pytestmark = needs_browser
VMS = "/console/projects/default/vms"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


async def vm(cloud: Bed, name: str, project: str = "default", **more: object) -> str:
    """A VM that runs; its id."""
    body = {"name": name, "image": IMAGE, "vcpus": 1, "memory_mib": 512, "disk_gib": 4, **more}
    made = await cloud.send("POST", f"/v1/projects/{project}/vms?wait=30s", body)
    assert made["operation"]["status"] == "succeeded", made
    return str(made["vm"]["id"])


def names(page: Page) -> Any:
    return page.locator(".table .row th")


async def test_vms_of_all_projects_that_one_sees(chromium: Browser, cloud: Bed) -> None:
    await cloud.send("POST", "/v1/projects?wait=30s", {"id": "second", "name": "Second"})
    ids = {"first-1": await vm(cloud, "first-1"), "second-1": await vm(cloud, "second-1", "second")}
    await cloud.allow(viewer="viewer@default")
    page = await cloud.signed_in(chromium, "admin", VMS)
    await page.get_by_role("link", name="Those of all projects").click()
    await expect(page).to_have_url(re.compile("/console/vms$"))
    await expect(names(page)).to_have_text(["first-1", "second-1"])
    await page.get_by_role("combobox", name="Project", exact=True).last.select_option("second")
    await expect(names(page)).to_have_text(["second-1"])
    await page.get_by_role("button", name="Remove the filter Project: second").click()
    # a change elsewhere is seen in both
    await cloud.send("PATCH", f"/v1/projects/second/vms/{ids['second-1']}", {"name": "renamed"})
    await expect(names(page)).to_have_text(["first-1", "renamed"])
    region = page.get_by_role("region", name="Virtual machines of all projects")
    await region.focus()
    await page.keyboard.press("Control+a")
    await page.get_by_role("toolbar").get_by_role("button", name="Pause").click()
    await page.get_by_role("dialog").get_by_role("button", name="Pause 2 VMs").click()
    await expect(page.get_by_text("Pause: 2 of 2 accepted, 2 done")).to_be_visible()
    await expect(page.get_by_role("row", name=re.compile("Paused"))).to_have_count(2)
    await page.get_by_role("link", name="renamed").click()
    await expect(page).to_have_url(re.compile(f"/projects/second/vms/{ids['second-1']}"))
    other = await cloud.signed_in(chromium, "viewer", "/console/vms")
    await expect(names(other)).to_have_text(["first-1"])
    await cloud.send("DELETE", f"/v1/projects/second/vms/{ids['second-1']}?wait=30s")
    await cloud.send("DELETE", "/v1/projects/second?wait=30s")


@pytest.mark.usefixtures("tags")
async def test_filters_order_and_columns_of_a_list(chromium: Browser, cloud: Bed) -> None:
    await vm(cloud, "a-1", tags=["blue"], labels={"team": "x"})
    await vm(cloud, "b-1", vcpus=2, labels={"team": "x"})
    await vm(cloud, "c-1", labels={"team": "y"})
    page = await cloud.signed_in(chromium, "admin", VMS)
    await expect(names(page)).to_have_text(["a-1", "b-1", "c-1"])
    await page.locator("select[name=label]").select_option("team=x")
    await expect(names(page)).to_have_text(["a-1", "b-1"])
    await page.locator("select[name=size]").select_option("2 CPU, 512 MiB, 4 GiB")
    await expect(names(page)).to_have_text(["b-1"])
    await expect(page.get_by_text("1 of 3 VMs")).to_be_visible()
    # another browser gets the same list by its address
    other = await cloud.signed_in(chromium, "admin", page.url.removeprefix(cloud.url))
    await expect(names(other)).to_have_text(["b-1"])
    await other.get_by_role("button", name="Remove the filter Size: 2 CPU, 512 MiB, 4 GiB").click()
    await expect(names(other)).to_have_text(["a-1", "b-1"])
    await page.get_by_role("button", name="Remove all").click()
    await page.locator("select[name=tag]").select_option("blue")
    await expect(names(page)).to_have_text(["a-1"])
    await page.locator("select[name=tag]").select_option("")
    await page.locator("select[name=age]").select_option("under an hour")
    await expect(names(page)).to_have_text(["a-1", "b-1", "c-1"])
    await page.goto(f"{VMS}?age=%3E30d&state=nothing")
    await expect(page.get_by_role("heading", name="None of them matches")).to_be_visible()
    for column in ("State", "Address", "Node", "Image", "Size", "Tags", "Labels", "Age"):
        await page.goto(VMS)
        head = page.get_by_role("columnheader", name=column, exact=True)
        await head.get_by_role("button").click()
        await expect(head).to_have_attribute("aria-sort", "ascending")
        await expect(page).to_have_url(re.compile("sort="))
    await expect(names(page)).to_have_text(["c-1", "b-1", "a-1"])  # the youngest first
    await page.reload()
    await expect(names(page)).to_have_text(["c-1", "b-1", "a-1"])
    await page.get_by_role("button", name="Columns").click()
    dialog = page.get_by_role("dialog", name="Columns")
    await dialog.get_by_role("checkbox", name="Node").uncheck()
    await dialog.get_by_role("checkbox", name="CPUs").check()
    await dialog.get_by_role("button", name="Close").last.click()
    await page.reload()
    await expect(names(page)).to_have_count(3)
    await expect(page.get_by_role("columnheader", name="Node")).to_have_count(0)
    await expect(page.get_by_role("columnheader", name="CPUs")).to_be_visible()
    await page.evaluate("localStorage.setItem('nebula.columns.vms', '{\"wrong\":')")
    await page.reload()
    await expect(page.get_by_role("columnheader", name="Node")).to_be_visible()


@pytest.mark.usefixtures("tags")
async def test_each_outcome_of_many_and_trying_again(chromium: Browser, cloud: Bed) -> None:
    """One is protected, one call gets no answer although it arrives: that one is not done twice."""
    ids = {name: await vm(cloud, name, tags=["red"]) for name in ("one", "two", "three")}
    await cloud.send("PATCH", f"/v1/projects/default/vms/{ids['two']}?wait=30s", {"protected": True})
    page = await cloud.signed_in(chromium, "admin", VMS)
    await page.get_by_role("checkbox", name="Select all rows").check()
    keys: list[str] = []

    async def lost(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            await route.fetch()  # it arrives, and its answer does not
            await route.abort()
        else:
            await route.continue_()

    await page.route(f"**/vms/{ids['one']}", lost)
    await page.get_by_role("toolbar").get_by_role("button", name="Delete").click()
    question = page.get_by_role("dialog")
    await expect(question.get_by_role("button", name="Delete 3 VMs")).to_be_disabled()
    await question.get_by_label("Type 3 to confirm").fill("3")
    await question.get_by_role("button", name="Delete 3 VMs").click()
    panel = page.get_by_role("region", name="Outcomes")
    await expect(panel.get_by_role("status")).to_have_text(
        "Delete: 1 of 3 accepted, 1 done, 1 refused, 1 without an answer"
    )
    await expect(panel.get_by_role("listitem").filter(has_text="cannot delete")).to_contain_text("protected")
    await cloud.send("PATCH", f"/v1/projects/default/vms/{ids['two']}?wait=30s", {"protected": False})
    await panel.get_by_role("button", name="Try again: 2 VMs").click()
    await expect(panel.get_by_role("status")).to_have_text("Delete: 3 of 3 accepted, 3 done")
    assert len(keys) == 2 and keys[0] == keys[1]
    await expect(page.get_by_text("This project has none yet.")).to_be_visible()
    cloud.faults.clear()  # the browser says that a call was aborted


@pytest.mark.usefixtures("tags")
async def test_tags_and_labels_of_many(chromium: Browser, cloud: Bed) -> None:
    await vm(cloud, "one", tags=["red"], labels={"team": "x", "keep": "1"})
    await vm(cloud, "two", tags=["blue"], labels={"team": "y"})
    page = await cloud.signed_in(chromium, "admin", VMS)

    async def changed(said: str, **fields: str) -> None:
        await page.get_by_role("checkbox", name="Select all rows").check()
        await page.get_by_role("toolbar").get_by_role("button", name="Tags and labels").click()
        dialog = page.get_by_role("dialog", name="Tags and labels: 2 VMs")
        for label, text in fields.items():
            await dialog.get_by_label(label.replace("_", " ")).fill(text)
        await dialog.get_by_role("button", name="Change 2 VMs").click()
        await expect(page.get_by_role("region", name="Outcomes").get_by_role("status")).to_have_text(said)

    await changed("Tags and labels: 1 of 2 accepted, 1 done, 1 unchanged", Tags_to_add="blue", Labels_to_remove="none")
    await changed(
        "Tags and labels: 2 of 2 accepted, 2 done",
        **{"Tags_to_remove": "red, blue", "Labels_to_set": "tier=web", "Labels_to_remove": "team"},
    )
    have = (await cloud.send("GET", "/v1/projects/default/vms"))["items"]
    assert [(each["tags"], each["labels"]) for each in have] == [
        ([], {"keep": "1", "tier": "web"}),
        ([], {"tier": "web"}),
    ]
    await changed("Tags and labels: 0 of 2 accepted, 0 done, 2 refused", Tags_to_add="no-such-tag")
    await expect(page.get_by_role("region", name="Outcomes")).to_contain_text("no-such-tag")
    await expect(page.get_by_role("row", name=re.compile("one.*keep=1"))).to_be_visible()


async def test_a_list_by_keys_alone(chromium: Browser, cloud: Bed) -> None:
    for name in ("one", "two", "three"):
        await vm(cloud, name)
    page = await cloud.signed_in(chromium, "admin", VMS)
    await expect(names(page)).to_have_text(["one", "two", "three"])
    press = page.keyboard.press
    await press("?")
    help_ = page.get_by_role("dialog", name="Keys")
    for words in ("Next VM", "Select this VM", "Stop the selected VMs", "Open the console", "Create a VM"):
        await expect(help_).to_contain_text(words)
    await press("Escape")
    await expect(help_).to_have_count(0)
    for key in ("j", "x", "j", "j", "k", "x"):
        await press(key)
    await expect(page.get_by_text("2 VMs selected")).to_be_visible()
    await press("S")
    await expect(page.get_by_role("dialog", name="Stop: 2 VMs")).to_be_visible()
    await press("Enter")
    await expect(page.get_by_text("Stop: 2 of 2 accepted, 2 done")).to_be_visible()
    await expect(page.get_by_role("row", name=re.compile("Stopped"))).to_have_count(2)
    await press("a")
    await expect(page.get_by_text("3 VMs selected")).to_be_visible()
    await press("s")
    await expect(page.get_by_role("dialog", name="Start: 2 VMs")).to_be_visible()
    await press("Enter")
    await expect(page.get_by_text("Start: 2 of 2 accepted, 2 done")).to_be_visible()
    await press("/")
    await page.keyboard.type("sjaxc")  # letters in a field are letters
    await expect(page.get_by_role("searchbox")).to_have_value("sjaxc")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(page.get_by_text("selected")).to_have_count(0)
    await press("Control+a")
    await page.keyboard.type("thr")
    await expect(names(page)).to_have_text(["three"])
    await press("Enter")
    await press("c")
    await expect(page.get_by_role("dialog", name="Create a virtual machine")).to_be_visible()
    await page.keyboard.type("c")
    await expect(page.get_by_role("dialog").get_by_label("Name")).to_have_value("c")
    await press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await press("t")
    await expect(page).to_have_url(re.compile("tab=console"))


async def test_a_list_on_a_phone(chromium: Browser, cloud: Bed) -> None:
    for name in ("one", "a-name-of-a-vm-that-is-much-longer-than-a-phone-is-wide"):
        await vm(cloud, name, labels={"team": "x"})
    page = await cloud.signed_in(chromium, "admin", VMS, **PHONE)
    await expect(names(page)).to_have_count(2)
    for box in ("document.documentElement", "document.querySelector('.table-box')"):
        assert await page.evaluate(f"{box}.scrollWidth <= innerWidth"), box
    await expect(page.get_by_role("columnheader", name="Name")).to_be_hidden()
    await page.get_by_role("button", name="Actions of one").click()
    sheet = page.get_by_role("dialog", name="one")
    edge = await sheet.bounding_box()
    assert edge is not None and edge["width"] == 390 and edge["y"] + edge["height"] == pytest.approx(844, abs=1)
    await sheet.get_by_role("button", name="Stop").click()
    await page.get_by_role("dialog", name="Stop: one").get_by_role("button", name="Stop one").click()
    await expect(page.get_by_text("Stop: 1 of 1 accepted, 1 done")).to_be_visible()
    await page.get_by_role("region", name="Outcomes").get_by_role("button", name="Close").click()
    await page.get_by_role("button", name="Filters").click()
    await page.get_by_role("combobox", name="State").select_option("stopped")
    await expect(names(page)).to_have_text(["one"])
    await page.get_by_role("checkbox", name="Select one").check()
    await page.get_by_role("toolbar").get_by_role("button", name="Actions", exact=True).click()
    await page.get_by_role("dialog", name="1 VM selected").get_by_role("button", name="Start", exact=True).click()
    await page.get_by_role("dialog", name="Start: one").get_by_role("button", name="Start one").click()
    await expect(page.get_by_role("heading", name="None of them matches")).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


MANY = 10_000
TASKS = """() => {
  window.longest = 0;
  new PerformanceObserver(list => {
    for (const each of list.getEntries()) window.longest = Math.max(window.longest, each.duration);
  }).observe({type: "longtask", buffered: false});
}"""


async def test_ten_thousand_rows(chromium: Browser, cloud: Bed) -> None:
    """The list is made up, of the shape of a real VM: it is about what the browser does with it."""
    one = await vm(cloud, "shape", labels={"team": "x"})
    shape = await cloud.send("GET", f"/v1/projects/default/vms/{one}")
    changes = 0

    async def list_(route: Route) -> None:
        url = route.request.url
        after = int(found[1]) if (found := re.search(r"page_token=(\d+)", url)) else 0
        items = [
            {**shape, "id": f"{at:08}-0000-4000-8000-000000000000", "name": f"web-{(at * 7919) % MANY}"}
            if at
            else shape
            for at in range(after, min(MANY, after + 500))
        ]
        following = str(after + 500) if after + 500 < MANY else None
        await route.fulfill(json={"items": items, "next_page_token": following, "position": shape["position"]})

    page = await cloud.page(chromium)
    await page.route(re.compile(r"/v1/projects/default/vms\?"), list_)
    await page.goto(VMS)
    await page.get_by_label("Token").fill("admin-token")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_text("10,000 VMs", exact=True)).to_be_visible()
    await page.evaluate(TASKS)
    box = page.get_by_role("region", name="Virtual machines of default")
    await page.get_by_role("columnheader", name="Name").get_by_role("button").click()
    await expect(names(page).first).to_have_text("shape")
    most = 0
    for top in range(0, 44 * MANY, 44 * 499):
        await box.evaluate("(box, top) => { box.scrollTop = top; }", top)
        await page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        most = max(most, await page.locator(".table .row").count())
    assert 0 < most <= 80
    await box.evaluate("box => { box.scrollTop = box.scrollHeight; }")
    await expect(names(page).last).to_have_text(f"web-{MANY - 1}")
    await page.get_by_role("searchbox").fill("web-77")
    await expect(page.get_by_text(re.compile("111 of 10,000 VMs"))).to_be_visible()

    async def changed() -> bool:
        nonlocal changes
        changes += 1
        await cloud.send("PATCH", f"/v1/projects/default/vms/{one}", {"description": f"no {changes}"})
        return changes >= 20

    await eventually(changed, "there were many events")
    await expect(names(page).first).to_be_visible()
    longest = await page.evaluate("() => window.longest")
    assert longest < 1000, f"a task of {longest} ms"  # wide: the machine is shared; `bench page` measures
