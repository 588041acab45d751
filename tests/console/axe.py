"""What axe finds wrong with a page: whatever one of its rules says, however serious."""

import sys
from functools import cache
from pathlib import Path

from playwright.async_api import Page

AXE = Path(sys.prefix) / "console-tests" / "node_modules" / "axe-core" / "axe.min.js"
RULES = "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice']}"
OF_COLOURS = "{runOnly: {type: 'rule', values: ['color-contrast', 'link-in-text-block']}}"
SUMMARY = "found => found.violations.map(each => [each.id, each.nodes.map(node => node.html.slice(0, 200))])"

Found = list[tuple[str, list[str]]]


async def faults(page: Page, within: str = "html") -> Found:
    """Each rule that is broken in the element, in light and in dark, with the elements that break it.

    The scheme is a matter of CSS alone (`test_pages.py`): what has nothing to do with colours is looked at in light.
    """
    await page.emulate_media(color_scheme="light")
    await page.evaluate(program())
    found: Found = await page.evaluate(f"axe.run('{within}', {RULES}).then({SUMMARY})")
    await page.emulate_media(color_scheme="dark")
    dark: Found = await page.evaluate(f"axe.run('{within}', {OF_COLOURS}).then({SUMMARY})")
    return [*found, *((f"{rule} in dark", elements) for rule, elements in dark)]


@cache
def program() -> str:
    return AXE.read_text()
