"""The pages in a browser: signing in, the overview, the table of VMs, one VM, as people use them."""

import re

import pytest
from playwright.async_api import Browser, expect

from tests.console.axe import faults
from tests.console.bed import IMAGE, Bed, needs_browser
from tests.console.calls import patterns

pytestmark = needs_browser
VMS = "/console/projects/default/vms"


async def test_a_person_creates_a_vm_and_watches_it(chromium: Browser, cloud: Bed) -> None:
    page = await cloud.signed_in(chromium, "admin")
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    await expect(page.get_by_role("heading", name="2 nodes")).to_be_visible()
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await page.get_by_role("navigation", name="Pages").get_by_role("link", name="Virtual machines").click()
    await expect(page).to_have_url(re.compile(r"/console/projects/[a-z]+/vms$"))
    await page.get_by_role("combobox", name="Project").select_option("default")
    await expect(page).to_have_url(re.compile(VMS + "$"))
    await expect(page.get_by_text("This project has none yet.")).to_be_visible()

    await page.get_by_role("button", name="Create VM").first.click()
    dialog = page.get_by_role("dialog", name="Create a virtual machine")
    await dialog.get_by_label("Name").fill("Not A Name!")
    await expect(dialog.get_by_label("Image")).to_have_value(IMAGE)
    await dialog.get_by_label("User-data").fill("echo hello")
    await expect(dialog.get_by_text("begin with the line #cloud-config")).to_be_visible()
    await dialog.get_by_role("button", name="Create", exact=True).click()
    await expect(dialog.get_by_label("Name")).to_have_attribute("aria-invalid", "true")
    await dialog.get_by_label("Name").fill("web-1")
    await dialog.get_by_label("User-data").fill("#cloud-config\n")
    await dialog.get_by_label("Labels").fill("team=blue")
    await dialog.get_by_role("button", name="Create", exact=True).click()
    await expect(dialog.get_by_text("Succeeded")).to_be_visible()
    await dialog.get_by_role("button", name="Open the VM").click()

    await expect(page.get_by_role("heading", name="web-1")).to_be_visible()
    await expect(page.get_by_text("Running").first).to_be_visible()
    await expect(page.get_by_text("ready", exact=True)).to_be_visible()
    await expect(page.get_by_text("team=blue")).to_be_visible()
    await page.get_by_role("button", name="Stop").click()
    await page.get_by_role("dialog", name="Stop: web-1").get_by_role("button", name="Stop").click()
    await expect(page.get_by_text("Stopped").first).to_be_visible()
    await expect(page.get_by_role("button", name="Start")).to_be_visible()

    await page.get_by_role("button", name="More actions").click()
    await page.get_by_role("menuitem", name="Delete").click()
    question = page.get_by_role("dialog", name="Delete: web-1")
    await expect(question.get_by_role("button", name="Delete")).to_be_disabled()
    await question.get_by_label("Type web-1 to confirm").fill("web-1")
    await question.get_by_role("button", name="Delete").click()
    await page.get_by_role("link", name="Virtual machines").first.click()  # while it is being deleted
    await expect(page.get_by_text("This project has none yet.")).to_be_visible()


async def vm(cloud: Bed, name: str, **more: object) -> str:
    """A VM that runs; its id."""
    body = {"name": name, "image": IMAGE, "vcpus": 1, "memory_mib": 512, "disk_gib": 4, **more}
    made = await cloud.send("POST", "/v1/projects/default/vms?wait=30s", body)
    assert made["operation"]["status"] == "succeeded", made
    return str(made["vm"]["id"])


async def test_a_page_follows_what_others_do_and_travels(chromium: Browser, cloud: Bed) -> None:
    """Everything here happens by another caller; the page is never reloaded."""
    page = await cloud.signed_in(chromium, "admin", VMS)
    await expect(page.get_by_text("This project has none yet.")).to_be_visible()
    one = await vm(cloud, "seen-live")
    await expect(page.get_by_role("link", name="seen-live")).to_be_visible()
    await expect(page.get_by_role("row", name=re.compile("seen-live.*Running"))).to_be_visible()
    before = (await cloud.send("GET", f"/v1/projects/default/vms/{one}"))["position"]
    await page.get_by_role("link", name="seen-live").click()
    await expect(page.get_by_role("button", name="Stop")).to_be_visible()
    await cloud.send("POST", f"/v1/projects/default/vms/{one}/stop?wait=30s", {"force": True})
    await expect(page.get_by_text("Stopped").first).to_be_visible()

    await page.get_by_role("button", name=f"position {before}").click()
    await expect(page).to_have_url(re.compile(rf"at={before}"))
    await expect(
        page.get_by_text(re.compile(f"as it was at .*position {before}. Nothing can be changed"))
    ).to_be_visible()
    await expect(page.get_by_text("Running").first).to_be_visible()
    await expect(page.get_by_role("button", name="Start")).to_have_count(0)
    shared = page.url
    await page.keyboard.press("n")
    await expect(page.get_by_text("Stopped").first).to_be_visible()
    await expect(page.get_by_role("button", name="Start")).to_be_visible()
    await page.goto(shared)
    await expect(page.get_by_text("Running").first).to_be_visible()
    await page.get_by_role("navigation", name="Pages").get_by_role("link", name="Virtual machines").click()
    await expect(page).to_have_url(re.compile(rf"{VMS}\?at={before}"))
    await expect(page.get_by_role("row", name="seen-live")).to_be_visible()
    knows = any(re.search(r"projects.*vms$", pattern) for pattern in patterns("at"))
    await expect(page.get_by_text("as it is now: this gateway does not know")).to_have_count(0 if knows else 1)
    await page.go_back()
    slider = page.get_by_role("slider", name="Moment that is shown")
    await slider.focus()
    await page.keyboard.press("End")
    await expect(page).not_to_have_url(re.compile("at="))


async def test_a_table_by_keys_and_many_vms_at_the_same_time(chromium: Browser, cloud: Bed) -> None:
    names = [f"many-{number}" for number in (2, 10, 1)]
    ids = [await vm(cloud, name) for name in names]
    page = await cloud.signed_in(chromium, "admin", VMS)
    heads = page.locator(".table .row th")
    await expect(heads).to_have_text(names)
    await page.get_by_role("button", name="Name").click()
    await expect(heads).to_have_text(["many-1", "many-2", "many-10"])
    await page.get_by_role("searchbox").fill("many-10")
    await expect(heads).to_have_text(["many-10"])
    await expect(page).to_have_url(re.compile("q=many-10"))
    await page.reload()
    await expect(heads).to_have_text(["many-10"])
    await page.get_by_role("searchbox").fill("")
    table = page.get_by_role("region", name="Virtual machines of default")
    await table.focus()
    for key in ("Home", "Space", "Shift+ArrowDown"):
        await page.keyboard.press(key)
    await expect(page.get_by_text("2 VMs selected")).to_be_visible()
    await page.keyboard.press("Control+a")
    await expect(page.get_by_text("3 VMs selected")).to_be_visible()
    await page.get_by_role("toolbar").get_by_role("button", name="Pause").click()
    await page.get_by_role("dialog").get_by_role("button", name="Pause 3 VMs").click()
    await expect(page.get_by_text("Pause: 3 of 3 accepted")).to_be_visible()
    await expect(page.get_by_role("row", name=re.compile("Paused"))).to_have_count(3)
    await table.focus()
    await page.keyboard.press("Control+a")
    await page.get_by_role("toolbar").get_by_role("button", name="Delete").click()
    question = page.get_by_role("dialog")
    await question.get_by_label("Type 3 to confirm").fill("3")
    await question.get_by_role("button", name="Delete 3 VMs").click()
    await expect(page.get_by_text("This project has none yet.")).to_be_visible()
    assert len(ids) == 3


async def test_a_viewer_sees_and_does_nothing_else(chromium: Browser, cloud: Bed) -> None:
    await cloud.allow(viewer="viewer@default", member="member@default")
    await vm(cloud, "looked-at")
    page = await cloud.signed_in(chromium, "viewer", VMS)
    await expect(page.get_by_role("link", name="looked-at")).to_be_visible()
    await expect(page.get_by_role("button", name="Create VM")).to_have_count(0)
    await expect(page.get_by_role("combobox", name="Project").get_by_role("option")).to_have_text(["Default"])
    await page.get_by_role("link", name="looked-at").click()
    await expect(page.get_by_role("heading", name="What happened")).to_be_visible()
    await expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    await page.get_by_role("navigation", name="Pages").get_by_role("link", name="Overview").click()
    await expect(page.get_by_role("heading", name="Virtual machines", exact=True)).to_be_visible()
    await expect(page.get_by_role("heading", name=re.compile("nodes?$"))).to_have_count(0)
    await page.goto("/console/projects/bench/vms")
    await expect(page.get_by_role("alert")).to_contain_text("there is no project bench")


async def test_a_session_ends_in_all_tabs(chromium: Browser, cloud: Bed) -> None:
    await cloud.allow(guest="viewer@default")
    page = await cloud.signed_in(chromium, "guest", VMS)
    second = await page.context.new_page()
    await second.goto(VMS)
    await expect(second.get_by_text("Live", exact=True)).to_be_visible()
    await page.get_by_role("button", name="Account").click()
    await page.get_by_role("menuitem", name="Sign out").click()
    for each in (page, second):
        await expect(each.get_by_label("Token")).to_be_visible()
        await expect(each.get_by_text("You are signed out.")).to_be_visible()
    assert await page.context.cookies() == []
    await page.get_by_label("Token").fill("wrong")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_contain_text("token")
    await page.get_by_label("Token").fill("guest-token")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", name="Virtual machines", exact=True)).to_be_visible()
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await cloud.allow()
    await expect(page.get_by_text("Your session has ended")).to_be_visible()
    await expect(page.get_by_label("Token")).to_be_visible()


async def test_a_lost_connection_says_so_and_misses_nothing(chromium: Browser, cloud: Bed) -> None:
    page = await cloud.signed_in(chromium, "admin", VMS)
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await cloud.stop_gateway()
    await expect(page.get_by_text("Connection lost")).to_be_visible()
    body = {"name": "missed", "image": IMAGE, "vcpus": 1, "memory_mib": 512, "disk_gib": 4}
    await cloud.elsewhere("POST", "/v1/projects/default/vms", body)
    await cloud.start_gateway()
    await expect(page.get_by_role("row", name=re.compile("missed.*Running"))).to_be_visible()
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()


SCRIPT = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"


async def test_text_of_others_is_text(chromium: Browser, cloud: Bed) -> None:
    one = await vm(cloud, "named", description=SCRIPT, labels={"a": SCRIPT})
    await cloud.send("PATCH", "/v1/projects/default?wait=30s", {"name": SCRIPT[:60]})
    page = await cloud.signed_in(chromium, "admin", f"{VMS}/{one}")
    await expect(page.get_by_text(SCRIPT, exact=True)).to_be_visible()
    await expect(page.get_by_text(f"a={SCRIPT}")).to_be_visible()
    assert await page.locator("img, script:not([src])").count() == 0
    assert await page.title() == "named · Nebula"
    await cloud.send("PATCH", "/v1/projects/default?wait=30s", {"name": "Default"})


async def test_an_address_leads_nowhere_else(chromium: Browser, cloud: Bed) -> None:
    page = await cloud.signed_in(chromium, "admin", "/console/no/such/page")
    await expect(page.get_by_role("heading", name="No page has this address")).to_be_visible()
    for address in (
        "/console//evil.example/x",
        "/console/projects/%2e%2e/nothing",
        "/console/%5cevil.example",
    ):
        await page.goto(address)
        await expect(page.get_by_role("heading", name="No page has this address")).to_be_visible()
    await page.get_by_role("link", name="Overview").last.click()
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    framed = await cloud.page(chromium)
    await framed.set_content(f"<iframe src='{cloud.url}/console/'></iframe>")
    await expect(framed.frame_locator("iframe").get_by_label("Token")).to_have_count(0)
    cloud.faults.clear()  # the browser says that it has refused the frame


async def test_everything_is_found_by_keys(chromium: Browser, cloud: Bed) -> None:
    page = await cloud.signed_in(chromium, "admin")
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    await page.keyboard.press("g")
    await page.keyboard.press("v")
    await expect(page.get_by_role("heading", name="Virtual machines", exact=True)).to_be_visible()
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keys")).to_contain_text("Go back to now")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.keyboard.press("Control+k")
    await page.get_by_role("combobox", name="Page, project or virtual machine").fill("ovw")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    await page.get_by_role("button", name="Account").focus()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowDown")
    await expect(page.get_by_role("menuitem", name="Sign out")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("menuitem", name="Sign out")).to_be_hidden()


async def test_without_tokens_nobody_signs_in(chromium: Browser, cloud: Bed) -> None:
    page = await cloud.page(chromium)
    await page.goto(f"http://127.0.0.1:{cloud.cloud.http_port}/")
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await page.get_by_role("button", name="Account local").click()
    await expect(page.get_by_role("menuitem", name="Sign out")).to_have_count(0)


@pytest.mark.parametrize("width", [1280, 390])
async def test_everybody_can_use_the_dialogue(chromium: Browser, cloud: Bed, width: int) -> None:
    """axe finds nothing in it, in both colour schemes, on a desktop and on a phone; of pages: test_pages.py."""
    page = await cloud.signed_in(chromium, "admin", VMS, viewport={"width": width, "height": 844})
    await page.get_by_role("button", name="Create VM").first.click()
    await expect(page.get_by_role("dialog").get_by_label("Image")).to_have_value(IMAGE)
    assert await faults(page, "dialog") == []
