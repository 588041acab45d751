"""A person at the page of a VM, in a browser: who sees its guest boot, logs in at its serial console, and types."""

import re

from playwright.async_api import Browser, Page, expect

from tests.e2e.guests import Guest
from tests.waiting import eventually

NAME, PASSWORD = "person", "open-sesame"
#: User-data: somebody who can log in without a key.
PERSON = f"""
users:
  - default
  - name: {NAME}
    lock_passwd: false
    plain_text_passwd: {PASSWORD}
    shell: /bin/bash
"""
#: How many pixels of the display are not black, and what says whether two pictures of it are the same.
PICTURE = """() => {
    const canvas = document.querySelector('.display-box canvas');
    if (!canvas || canvas.width === 0) return [0, 0];
    const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let lit = 0, sum = 0;
    for (let at = 0; at < data.length; at += 4) {
        const value = data[at] + data[at + 1] + data[at + 2];
        if (value > 60) lit += 1;
        sum = (sum * 31 + value) % 1000000007;
    }
    return [lit, sum];
}"""
#: Milliseconds that a guest may take without KVM, beside other tests.
PATIENCE = 300_000


async def signed_in(chromium: Browser, guest: Guest, faults: list[str]) -> Page:
    """The page of the VM, of the operator. `faults`: where errors of its scripts are put."""
    context = await chromium.new_context(base_url=guest.up.url, viewport={"width": 1280, "height": 900})
    page = await context.new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    await page.goto(f"/console/projects/default/vms/{guest.vm}?tab=display")
    await page.get_by_label("Token").fill((guest.up.home / "admin.token").read_text().strip())
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("banner").wait_for()
    return page


async def tab(page: Page, name: str) -> None:
    await page.locator(".tabs").get_by_role("link", name=name, exact=True).click()


async def sees_it_boot(page: Page) -> None:
    """Its display shows text, and goes on while it boots."""
    await expect(page.get_by_text("Connected.", exact=True)).to_be_visible(timeout=PATIENCE)
    first: list[int] = []

    async def lit() -> bool:
        first[:] = await page.evaluate(PICTURE)
        return first[0] > 100

    await eventually(lit, "text on the display", 300)

    async def changed() -> bool:
        found = await page.evaluate(PICTURE)
        return bool(found[0] > 100 and found[1] != first[1])

    await eventually(changed, "another picture on the display", 300)


async def logs_in(page: Page, host: str, guest: Guest) -> None:
    """At the serial console, with the password of the user-data."""
    await tab(page, "Console")
    await expect(page.get_by_text("Connected. What you type goes to the VM.")).to_be_visible()
    rows = page.locator(".xterm-rows")

    async def asks() -> bool:
        await page.keyboard.press("Enter")
        return re.search(rf"{host}\s+login:", await rows.inner_text()) is not None

    await guest.until_ready(1)
    await eventually(asks, "it asks for a login", 300)
    await page.keyboard.type(f"{NAME}\n")
    await expect(rows).to_contain_text("Password:", timeout=PATIENCE)
    await page.keyboard.type(f"{PASSWORD}\n")
    await expect(rows).to_contain_text(re.compile(rf"{NAME}@{host}:~\$"), timeout=PATIENCE)
    await page.keyboard.type("echo the sum is $((6 * 7))\n")
    await expect(rows).to_contain_text("the sum is 42", timeout=PATIENCE)
    assert PASSWORD not in await rows.inner_text()
    await page.keyboard.type("exit\n")
    await expect(rows).to_contain_text(re.compile(r"logout.*login:", re.DOTALL), timeout=PATIENCE)


async def types_at_the_display(page: Page) -> None:
    """What is typed there is seen there: at the login of its first terminal."""
    await tab(page, "Display")
    await expect(page.get_by_text("Connected.", exact=True)).to_be_visible()
    before: list[int] = await page.evaluate(PICTURE)
    await page.locator(".display-box canvas").click()

    async def written() -> bool:
        await page.keyboard.type("x")
        found = await page.evaluate(PICTURE)
        return bool(found[0] > 100 and found != before)

    await eventually(written, "what was typed, on the display", 120)


async def reads_what_it_wrote(page: Page, mark: str) -> None:
    """The text of the boot, which came before anybody connected; and what the guest says of itself."""
    await tab(page, "Console log")
    log = page.get_by_role("region", name="Console log", exact=True).last
    await expect(log).to_contain_text(mark, timeout=PATIENCE)
    await tab(page, "Guest")
    await expect(page.get_by_text(re.compile("Debian GNU/Linux 12")).first).to_be_visible(timeout=PATIENCE)
