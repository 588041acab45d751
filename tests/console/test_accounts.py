"""Users, service accounts and tokens in a browser."""

import re

from playwright.async_api import Browser, expect

from tests.console.bed import Bed, needs_browser

pytestmark = needs_browser


async def test_a_user_from_its_creation_to_its_end(chromium: Browser, cloud: Bed) -> None:
    page = await cloud.signed_in(chromium, "admin", "/console/users")
    await page.get_by_role("button", name="Create user").first.click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Name").fill("<i>Carla</i>")
    await dialog.get_by_role("textbox", name=re.compile("^Id")).fill("carla")
    await dialog.get_by_role("button", name="Create").click()
    await expect(page.get_by_role("heading", name="<i>Carla</i>")).to_be_visible()
    await page.get_by_role("button", name="Give auditor").click()
    await dialog.get_by_role("button", name="Give the role auditor").click()
    await expect(page.get_by_text("Auditor of the cloud")).to_be_visible()

    await page.get_by_role("button", name="Issue a token").click()
    await dialog.get_by_label("Name").fill("laptop")
    await dialog.get_by_label("For reading only").check()
    await dialog.get_by_role("button", name="Issue").click()
    once = page.get_by_role("dialog", name="The token laptop")
    secret = await once.get_by_label("Secret").input_value()
    assert secret.startswith("nbl_")
    await page.keyboard.press("Escape")
    await expect(once).to_be_visible()  # a secret is not lost by a key
    await once.get_by_role("button", name="I have stored it").click()
    await expect(page.get_by_role("heading", name="1 token")).to_be_visible()
    assert secret not in await page.content()
    mine = {"Authorization": f"Bearer {secret}"}
    answer = await cloud.http.get("/v1/me", headers=mine)
    assert answer.json()["principal"] == "user:carla" and answer.json()["read_only"] is True

    await page.get_by_role("button", name="Disable").click()
    await dialog.get_by_role("button", name="Disable").click()
    await expect(page.get_by_role("button", name="Enable")).to_be_visible()
    assert (await cloud.send("GET", "/v1/users/carla"))["disabled"] is True
    await page.get_by_role("button", name="Revoke laptop").click()
    await dialog.get_by_label("Type laptop to confirm").fill("laptop")
    await dialog.get_by_role("button", name="Revoke").click()
    await expect(page.get_by_role("heading", name="0 tokens")).to_be_visible()
    await page.get_by_role("button", name="Delete").click()
    await dialog.get_by_label("Type carla to confirm").fill("carla")
    await dialog.get_by_role("button", name="Delete").click()
    await expect(page).to_have_url(re.compile("/console/users$"))


async def test_an_auditor_looks_only(chromium: Browser, cloud: Bed) -> None:
    await cloud.send("POST", "/v1/service-accounts?wait=30s", {"id": "robot", "name": "Robot"})
    body = {"name": "of-the-robot", "principal": "service:robot"}
    await cloud.send("POST", "/v1/tokens?wait=30s", body)
    await cloud.allow(auditor="auditor", viewer="viewer@default")
    page = await cloud.signed_in(chromium, "auditor", "/console/service-accounts")
    await page.get_by_role("link", name="Robot").click()
    await expect(page.get_by_text("of-the-robot")).to_be_visible()
    for button in ("Rename", "Disable", "Delete", "Give operator", "Issue a token", "Revoke of-the-robot"):
        await expect(page.get_by_role("button", name=button, exact=True)).to_have_count(0)
    viewer = await cloud.signed_in(chromium, "viewer", "/console/tokens")
    await expect(viewer.get_by_role("heading", name="Tokens", exact=True)).to_be_visible()
    await expect(viewer.get_by_text("of-the-robot")).to_have_count(0)
    menu = viewer.get_by_role("navigation", name="Pages")
    await expect(menu.get_by_role("link", name="Users")).to_have_count(0)
    await viewer.goto("/console/users/carla")
    await expect(viewer.get_by_role("alert")).to_contain_text("there is no user carla")


async def test_revoking_the_own_token_signs_out(chromium: Browser, cloud: Bed) -> None:
    await cloud.send("POST", "/v1/users?wait=30s", {"id": "dora", "name": "Dora"})
    await cloud.send("POST", "/v1/projects/default/bind?wait=30s", {"principal": "user:dora", "role": "viewer"})
    made = await cloud.send("POST", "/v1/tokens?wait=30s", {"name": "own", "principal": "user:dora"})
    page = await cloud.page(chromium)
    await page.goto("/console/tokens")
    await page.get_by_label("Token").fill(made["secret"])
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("button", name="Revoke own").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_text("You are signed in with this token")).to_be_visible()
    await dialog.get_by_label("Type own to confirm").fill("own")
    await dialog.get_by_role("button", name="Revoke").click()
    await expect(page.get_by_label("Token")).to_be_visible()
