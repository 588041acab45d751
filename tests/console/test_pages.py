"""Every page of `pages/index.js`, on a desktop and on a phone, light and dark: axe, width, heading, title, pictures.

    NEBULA_SCREENSHOTS=1 pytest tests/console/test_pages.py

writes the pictures into docs/console/. A page needs nothing here, unless its path has a parameter that `values` lacks.
"""

import base64
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest
from playwright.async_api import Browser, Page, expect

from eventstore.parking.parking import REPORTS, Parking
from gateway.console.files import WEB
from tests.console.axe import faults
from tests.console.bed import IMAGE, Bed, needs_browser

PICTURES = Path(__file__).parents[2] / "docs" / "console"
#: Maximum number of bytes of a picture, and of all of them.
MOST = 80_000
MOST_TOGETHER = 4_000_000
WIDTHS = {"desktop": (1280, 800), "phone": (390, 844)}
SCHEMES: tuple[Literal["light"], Literal["dark"]] = ("light", "dark")

#: The paths of all pages, and the title of each.
ENTRIES = re.findall(r'^\s*\{path: "([^"]+)", title: "([^"]+)"', (WEB / "pages" / "index.js").read_text(), re.MULTILINE)
PATHS = [path for path, _ in ENTRIES]
#: Pages that have no path of their own, by the names of their pictures.
MORE = {"signin": "Signing in", "past": "A virtual machine in the past"}
#: The key of the parked message that is pictured.
KEY = "picture"


def name_of(path: str) -> str:
    """The name of the pictures of a page."""
    return "-".join(re.findall(r"[a-z_]+", path)) or "overview"


TITLES = {**MORE, **{name_of(path): title for path, title in ENTRIES}}
NAMES = list(TITLES)


async def values(cloud: Bed) -> Mapping[str, str]:
    """A value for each parameter of a path: something that there is. A second call changes nothing."""
    sizes = {"vcpus": 2, "memory_mib": 2048, "disk_gib": 20}
    for path, given in (
        ("/v1/tags", {"id": "team-blue", "name": "Team Blue"}),
        ("/v1/flavors", {"id": "small", "name": "Small", "description": "For web servers", **sizes}),
        ("/v1/users", {"id": "ann", "name": "Ann"}),
        ("/v1/service-accounts", {"id": "robot", "name": "Robot"}),
    ):
        answer = await cloud.http.post(f"{path}?wait=30s", json=given)
        assert answer.status_code in (200, 202, 409), answer.text
    bus = await cloud.cloud.bus()
    try:
        about = "a report that is no JSON"
        await Parking(bus).park(
            REPORTS, KEY, subject="nebula.nodes.n1.reports.vm.x", position=7, error=about, body=b"{"
        )
    finally:
        await bus.close()
    body = {"name": "web-1", "image": IMAGE, "flavor": "small", "labels": {"team": "blue"}, "tags": ["team-blue"]}
    made = await cloud.send("POST", "/v1/projects/default/vms?wait=60s", {**body, "description": "The shop"})
    await cloud.send("POST", f"/v1/projects/default/vms/{made['vm']['id']}/stop?wait=30s", {"force": True})
    await cloud.send("POST", f"/v1/projects/default/vms/{made['vm']['id']}/start?wait=60s")
    operation = made["operation"]
    nodes = (await cloud.send("GET", "/v1/nodes"))["items"]
    position = str(operation["position"])
    return {
        **{"project": "default", "vm": made["vm"]["id"], "image": IMAGE, "node": nodes[0]["id"], "flavor": "small"},
        **{"operation": operation["id"], "event": position, "position": position, "at": position},
        **{"user": "ann", "service_account": "robot", "source": REPORTS, "key": KEY},
    }


async def judged(page: Page, name: str) -> None:
    """What holds for every page, when it has read all that it shows."""
    await expect(page.locator("h1").first).to_be_visible()
    await expect(page.locator("[aria-busy=true]")).to_have_count(0)
    assert re.fullmatch(r".+ · Nebula", await page.title()), name
    assert await faults(page) == [], name
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is too wide"


async def pictured(page: Page, name: str, width: str) -> None:
    """Write pictures in light and dark, if they are wanted."""
    if os.environ.get("NEBULA_SCREENSHOTS"):
        for scheme in SCHEMES:
            await page.emulate_media(color_scheme=scheme)
            await write_picture(page, f"{name}-{scheme}-{width}")


async def write_picture(page: Page, name: str) -> None:
    """As good as its limit allows."""
    PICTURES.mkdir(exist_ok=True)
    client = await page.context.new_cdp_session(page)
    for quality in (80, 60, 40):
        answer = await client.send("Page.captureScreenshot", {"format": "webp", "quality": quality})
        picture = base64.b64decode(answer["data"])
        if len(picture) <= MOST:
            break
    await client.detach()
    (PICTURES / f"{name}.webp").write_bytes(picture)


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
async def test_every_page(chromium: Browser, cloud: Bed, width: str) -> None:
    known = await values(cloud)
    wide, high = WIDTHS[width]
    look = {"viewport": {"width": wide, "height": high}, "reduced_motion": "reduce"}
    page = await cloud.page(chromium, **look)
    await page.goto("/console/")
    await expect(page.get_by_label("Token")).to_be_visible()
    await judged(page, "signin")
    await pictured(page, "signin", width)
    await page.get_by_label("Token").fill("admin-token")
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("banner").wait_for()
    addresses = {
        name_of(path): re.sub(r":([a-z_]+)", lambda found: known.get(found[1], "none"), path) for path in PATHS
    }
    addresses["past"] = f"/projects/default/vms/{known['vm']}?at={known['at']}"
    for name, address in addresses.items():
        await page.goto(f"/console{address}")
        await judged(page, name)
        await pictured(page, name, width)


def test_the_scheme_is_a_matter_of_css_alone() -> None:
    """So a page need not be loaded in each."""
    modules = [file for file in WEB.rglob("*.js") if "vendor" not in file.relative_to(WEB).parts]
    assert len(modules) > 20
    assert [file.name for file in modules if "color-scheme" in file.read_text()] == []


def test_every_page_has_its_own_name() -> None:
    assert len(PATHS) >= 3 and len(NAMES) == len(PATHS) + len(MORE)


def listed() -> str:
    """docs/console/README.md: all pictures, by the titles of their pages."""
    lines = ["# Pictures of the console", "", "`NEBULA_SCREENSHOTS=1 pytest tests/console/test_pages.py` makes them."]
    for name, title in TITLES.items():
        lines += ["", f"## {title}", ""]
        for scheme in SCHEMES:
            for width in WIDTHS:
                lines.append(f"![{title}, {scheme}, {width}]({name}-{scheme}-{width}.webp)")
    return "\n".join([*lines, ""])


def expected() -> set[str]:
    return {f"{name}-{scheme}-{width}.webp" for name in NAMES for scheme in SCHEMES for width in WIDTHS}


@pytest.mark.skipif(
    not PICTURES.is_dir() and not os.environ.get("NEBULA_SCREENSHOTS"), reason="no pictures of the console yet"
)
def test_every_page_has_its_pictures() -> None:
    """Each in all looks, none too large, and none of a page that is no more."""
    if os.environ.get("NEBULA_SCREENSHOTS"):
        (PICTURES / "README.md").write_text(listed())
        for old in {file.name for file in PICTURES.iterdir()} - expected() - {"README.md"}:
            (PICTURES / old).unlink()
    assert (PICTURES / "README.md").read_text() == listed()
    pictures = {file.name: file.stat().st_size for file in PICTURES.iterdir() if file.name != "README.md"}
    assert pictures.keys() == expected()
    assert max(pictures.values()) <= MOST
    assert sum(pictures.values()) <= MOST_TOGETHER
