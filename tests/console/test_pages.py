"""Every page of `pages/index.js`, on a desktop and on a phone, light and dark: axe, width, heading, title, pictures.

    NEBULA_SCREENSHOTS=1 pytest tests/console/test_pages.py

writes the pictures into docs/console/. A page needs nothing here, unless its path has a parameter that `values` lacks.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest
from playwright.async_api import Browser, Page, expect

from gateway.console.files import WEB
from tests.console.axe import faults
from tests.console.bed import IMAGE, Bed, needs_browser

PICTURES = Path(__file__).parents[2] / "docs" / "console"
#: Maximum number of bytes of a picture.
MOST = 80_000
WIDTHS = {"desktop": (1280, 800), "phone": (390, 844)}
SCHEMES: tuple[Literal["light"], Literal["dark"]] = ("light", "dark")

PATHS = re.findall(r'^\s*\{path: "([^"]+)"', (WEB / "pages" / "index.js").read_text(), re.MULTILINE)
#: Pages that have no path of their own, by the names of their pictures.
MORE = ("signin", "past")


def name_of(path: str) -> str:
    """The name of the pictures of a page."""
    return "-".join(re.findall(r"[a-z_]+", path)) or "overview"


NAMES = [*MORE, *map(name_of, PATHS)]


async def values(cloud: Bed) -> Mapping[str, str]:
    """A value for each parameter of a path: something that there is."""
    body = {"name": "web-1", "image": IMAGE, "vcpus": 2, "memory_mib": 2048, "disk_gib": 20, "labels": {"team": "blue"}}
    made = await cloud.send("POST", "/v1/projects/default/vms?wait=60s", {**body, "description": "The shop"})
    await cloud.send("POST", f"/v1/projects/default/vms/{made['vm']['id']}/stop?wait=30s", {"force": True})
    await cloud.send("POST", f"/v1/projects/default/vms/{made['vm']['id']}/start?wait=60s")
    operation = made["operation"]
    nodes = (await cloud.send("GET", "/v1/nodes"))["items"]
    position = str(operation["position"])
    return {
        **{"project": "default", "vm": made["vm"]["id"], "image": IMAGE, "node": nodes[0]["id"]},
        **{"operation": operation["id"], "event": position, "position": position, "at": position},
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
    """PNG, or JPEG if that would be too large."""
    PICTURES.mkdir(exist_ok=True)
    for old in PICTURES.glob(f"{name}.*"):
        old.unlink()
    picture = await page.screenshot(animations="disabled")
    if len(picture) <= MOST:
        (PICTURES / f"{name}.png").write_bytes(picture)
        return
    for quality in (85, 70, 55, 40):
        picture = await page.screenshot(animations="disabled", type="jpeg", quality=quality)
        if len(picture) <= MOST:
            (PICTURES / f"{name}.jpg").write_bytes(picture)
            return
    raise AssertionError(f"the picture {name} has {len(picture)} bytes")


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
async def test_every_page(chromium: Browser, cloud: Bed, width: str) -> None:
    known = await values(cloud)
    wide, high = WIDTHS[width]
    look = {"viewport": {"width": wide, "height": high}}
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
    assert len(PATHS) >= 3 and len(set(NAMES)) == len(NAMES)


def listed() -> str:
    """docs/console/README.md: all pictures."""
    lines = ["# Pictures of the console", "", "`NEBULA_SCREENSHOTS=1 pytest tests/console/test_pages.py` makes them."]
    for name in NAMES:
        lines += ["", f"## {name.replace('-', ' ')}", ""]
        for scheme in SCHEMES:
            for width in WIDTHS:
                (file,) = PICTURES.glob(f"{name}-{scheme}-{width}.*")
                lines.append(f"![{name}, {scheme}, {width}]({file.name})")
    return "\n".join([*lines, ""])


@pytest.mark.skipif(
    not PICTURES.is_dir() and not os.environ.get("NEBULA_SCREENSHOTS"), reason="no pictures of the console yet"
)
def test_every_page_has_its_pictures() -> None:
    """Each in all looks, none too large, and none of a page that is no more."""
    if os.environ.get("NEBULA_SCREENSHOTS"):
        (PICTURES / "README.md").write_text(listed())
    assert (PICTURES / "README.md").read_text() == listed()
    pictures = [file for file in PICTURES.iterdir() if file.name != "README.md"]
    assert len(pictures) == len(NAMES) * len(SCHEMES) * len(WIDTHS)
    assert max(file.stat().st_size for file in pictures) <= MOST
