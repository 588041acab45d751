"""Opens all that a page can open: its dialogues, one after the other, and nothing else."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

from playwright.async_api import Locator, Page, TimeoutError, expect

from gateway.console.files import WEB

#: The paths of all pages.
PATHS = re.findall(r'^\s*\{path: "([^"]+)"', (WEB / "pages" / "index.js").read_text(), re.MULTILINE)
TABS = ("console", "display", "usage", "log", "guest")
#: Buttons that open no dialogue.
OTHERS = re.compile(
    r"^(position \d+|Show|Copy|Back|Dismiss|Pause$|Read again|Try again|Connect again|Take it over|\d+ hours?)"
)
#: Milliseconds after which a click has opened no dialogue: some ask the platform something first.
LATEST = 1500


def addresses(known: Mapping[str, str]) -> dict[str, str]:
    """The address of each page, by its path, and of each part of the page of a VM."""
    found = {path: "/console" + re.sub(r":([a-z_]+)", lambda name: known.get(name[1], "none"), path) for path in PATHS}
    vm = "/projects/:project/vms/:vm"
    return found | {f"{vm} {tab}": f"{found[vm]}?tab={tab}" for tab in TABS}


def then(address: str, position: str) -> str:
    """An address at an earlier moment."""
    return f"{address}{'&' if '?' in address else '?'}at={position}"


async def read(page: Page) -> None:
    """Wait until a page has read what it shows."""
    await expect(page.locator("#main h1, #main h2").first).to_be_visible()
    await expect(page.locator("[aria-busy=true]")).to_have_count(0)


async def dialogs(page: Page) -> AsyncIterator[str]:
    """Open each dialogue of a page, whose buttons and menus are in its main part. Its title, while it is open."""
    address = page.url
    for name in await buttons(
        page.locator("#main button:visible:not(.sort, .menu-button, [disabled], [aria-pressed])")
    ):
        await page.locator("#main").get_by_role("button", name=name, exact=True).first.click()
        async for title in opened(page, address):
            yield title
    menu = page.locator("#main .menu-button")
    for number in range(await menu.count()):
        await menu.nth(number).click()
        items = page.locator("#main .menu:not([hidden]) [role=menuitem]:not([aria-disabled=true])")
        count = await items.count()
        await page.keyboard.press("Escape")
        for item in range(count):
            await menu.nth(number).click()
            await items.nth(item).click()
            async for title in opened(page, address):
                yield title


async def buttons(found: Locator) -> list[str]:
    """The names of buttons that may open a dialogue, each once."""
    script = "all => all.map(each => each.getAttribute('aria-label') ?? each.innerText.trim())"
    names: list[Any] = await found.evaluate_all(script)
    return [name for name in dict.fromkeys(names) if name and not OTHERS.match(name)]


async def opened(page: Page, address: str) -> AsyncIterator[str]:
    """The title of the dialogue that a click has opened, if it has. It is closed then."""
    dialog = page.locator("dialog[open]")
    with suppress(TimeoutError):
        await dialog.first.wait_for(timeout=LATEST)
    if await dialog.count():
        await expect(dialog.locator("[aria-busy=true]")).to_have_count(0)
        yield await dialog.locator("h2").first.inner_text()
        await page.keyboard.press("Escape")
        await expect(dialog).to_have_count(0)
    if page.url != address:
        await page.goto(address)
        await read(page)
