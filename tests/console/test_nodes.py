"""Nodes in a browser: the list, one node, and a host that may join."""

import hashlib
import re

from playwright.async_api import Browser, expect

from tests.console.bed import Bed, needs_browser
from tests.console.test_log import vm

pytestmark = needs_browser


async def test_an_operator_looks_at_a_node_and_closes_it(chromium: Browser, cloud: Bed) -> None:
    one, _operation, _position = await vm(cloud, "on-a-node")
    node = (await cloud.send("GET", f"/v1/projects/default/vms/{one}"))["node"]
    page = await cloud.signed_in(chromium, "admin", "/console/nodes")
    await expect(page.get_by_text("2 nodes")).to_be_visible()
    await page.get_by_role("region", name="Nodes").get_by_role("link", name=node).click()
    await expect(page.get_by_role("link", name="on-a-node")).to_be_visible()
    await expect(page.get_by_role("meter", name="Memory")).to_have_attribute("aria-valuetext", re.compile("of"))
    await page.get_by_role("button", name="Cordon").click()
    await page.get_by_role("dialog").get_by_role("button", name="Cordon").click()
    await expect(page.get_by_text("Cordoned").first).to_be_visible()
    assert (await cloud.send("GET", f"/v1/nodes/{node}"))["cordoned"] is True
    await page.get_by_role("button", name="Uncordon").click()
    await page.get_by_role("dialog").get_by_role("button", name="Uncordon").click()
    await expect(page.get_by_role("button", name="Cordon", exact=True)).to_be_visible()
    await page.get_by_role("button", name="More actions").click()
    await page.get_by_role("menuitem", name="Retire").click()
    question = page.get_by_role("dialog")
    await question.get_by_label(f"Type {node} to confirm").fill(node)
    await question.get_by_role("button", name="Retire").click()
    await expect(question.get_by_role("alert")).to_contain_text("lost")  # the words of the platform


async def test_the_secret_of_a_host_never_leaves_the_page(chromium: Browser, cloud: Bed) -> None:
    page = await cloud.signed_in(chromium, "admin", "/console/nodes")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.post_data or ""))
    await page.get_by_role("button", name="Add a host").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Name of the node").fill("Not a name")
    await dialog.get_by_role("button", name="Make the token").click()
    await expect(dialog.get_by_role("alert")).to_be_visible()
    await dialog.get_by_label("Name of the node").fill("joins-soon")
    await dialog.get_by_role("button", name="Make the token").click()
    shown = page.get_by_role("dialog", name="Add the host of joins-soon").get_by_label("Command")
    words = (await shown.input_value()).split()
    assert words[:3] == ["nebula", "node", "join"]
    token = next(word for word in words if word.startswith("nbj_joins-soon_"))
    assert len(token) == len("nbj_joins-soon_") + 43  # 256 bits
    digest = hashlib.sha256(token.encode()).hexdigest()
    assert any(digest in body for body in sent)
    assert not any(token in body for body in sent)
    await page.get_by_role("button", name="I have stored it").click()
    await expect(page.get_by_role("button", name="Revoke joins-soon")).to_be_visible()
    await page.get_by_role("button", name="Revoke joins-soon").click()
    question = page.get_by_role("dialog")
    await question.get_by_label("Type joins-soon to confirm").fill("joins-soon")
    await question.get_by_role("button", name="Revoke").click()
    await expect(page.get_by_role("listitem").filter(has_text="joins-soon")).to_contain_text("Revoked")
    await expect(page.get_by_role("button", name="Revoke joins-soon")).to_have_count(0)


async def test_an_auditor_changes_nothing_and_a_viewer_sees_none(chromium: Browser, cloud: Bed) -> None:
    await cloud.allow(auditor="auditor", viewer="viewer@default")
    node = (await cloud.send("GET", "/v1/nodes"))["items"][0]["id"]
    page = await cloud.signed_in(chromium, "auditor", f"/console/nodes/{node}")
    await expect(page.get_by_role("heading", name="Promised to VMs")).to_be_visible()
    await expect(page.get_by_role("button", name="Cordon")).to_have_count(0)
    await expect(page.get_by_role("button", name="More actions")).to_have_count(0)
    await page.goto("/console/nodes")
    await expect(page.get_by_text("2 nodes")).to_be_visible()
    await expect(page.get_by_role("button", name="Add a host")).to_have_count(0)
    viewer = await cloud.signed_in(chromium, "viewer", f"/console/nodes/{node}")
    await expect(viewer.get_by_role("alert")).to_be_visible()
    await expect(viewer.get_by_role("navigation", name="Pages").get_by_role("link", name="Nodes")).to_have_count(0)
    await expect(viewer.locator("#main")).not_to_contain_text("Promised")
