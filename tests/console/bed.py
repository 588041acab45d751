"""A browser, and a whole platform for it: real servers and roles in processes of their own, and simulated nodes.

    async with browser() as chromium, bed(nodes=2) as cloud:
        page = await cloud.signed_in(chromium, "admin", "/console/projects/default/vms")

Pages are waited for with Playwright's `expect`, never for a time. A test fails if the browser reports an error of a
script, or something that the content security policy refused.
"""

import hashlib
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    async_playwright,
    expect,
)

from bench.cloud import Cloud, cloud, expect as expect_success
from gateway.console.vendor import USUAL
from runtime.bus.accounts.table import SIMULATION
from runtime.local.child import free_port
from tests.console.apart import apart
from tests.waiting import eventually

CHROMIUM = shutil.which("chromium")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or not USUAL.is_dir(),
    reason="no chromium, or no files of the console: NEBULA_BROWSER=true make setup",
)
IMAGE = "blank"
#: The name of the gateway that needs tokens.
GATEWAY = "console"
ROLES = ("gateway", "handlers", "projections", "guest-data")
#: What the browser says by itself of an answer with a status from 400 on; that is no fault of the page.
EXPECTED = "Failed to load resource: the server responded with a status of"


#: Milliseconds until a page shows what is expected, on a slow machine.
PATIENCE = 30_000
expect.set_options(timeout=PATIENCE)


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium, without a window."""
    async with async_playwright() as playwright, apart(CHROMIUM or "chromium") as (program, network):
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", *network]
        made = await playwright.chromium.launch(executable_path=program, args=options)
        try:
            yield made
        finally:
            await made.close()


@dataclass
class Bed:
    """A platform to open pages of. `url`: of a gateway that needs tokens; `tokens`: their file.

    `http` is the operator `admin`.
    """

    cloud: Cloud
    url: str
    tokens: Path
    http: httpx.AsyncClient
    contexts: list[BrowserContext] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    async def allow(self, **roles: str) -> None:
        """The tokens from now on, besides that of `admin`: `viewer="viewer@default"` makes `viewer-token`.

        The gateway that pages are of runs, or is being started.
        """
        lines = [line_of("admin"), *(f"{line_of(name)} {of}".strip() for name, of in roles.items())]
        self.tokens.write_text("\n".join([*lines, ""]))

        async def known() -> bool:
            names = ("admin", *roles)
            with suppress(httpx.TransportError):  # it has just been started
                answers = [
                    await self.http.get("/v1/me", headers={"Authorization": f"Bearer {name}-token"}) for name in names
                ]
                return all(answer.status_code == 200 for answer in answers)
            return False

        await eventually(known, "the gateway knows the tokens")

    async def page(self, chromium: Browser, **options: Any) -> Page:
        """An empty page in a profile of its own."""
        context = await chromium.new_context(base_url=self.url, **options)
        context.set_default_timeout(PATIENCE)
        self.contexts.append(context)
        page = await context.new_page()
        page.on("pageerror", lambda error: self.faults.append(f"{page.url}: {error}"))
        page.on("console", self._said)
        return page

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(EXPECTED):
            self.faults.append(f"{message.location}: {message.text}")

    async def signed_in(self, chromium: Browser, name: str, address: str = "/", **options: Any) -> Page:
        """A page whose user has signed in with a token of `allow`."""
        page = await self.page(chromium, **options)
        await page.goto(address)
        await page.get_by_label("Token").fill(f"{name}-token")
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("banner").wait_for()
        return page

    async def send(self, method: str, path: str, body: Any = None) -> Any:
        """The answer to a call of `admin`, which has to be a success."""
        answer = await self.http.request(method, path, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json()

    async def elsewhere(self, method: str, path: str, body: Any = None) -> Any:
        """The same by the other gateway of this platform, which needs no token."""
        async with self.cloud.connection() as http:
            return await expect_success(http, method, path, body)

    async def stop_gateway(self) -> None:
        """Stop the gateway that pages are of."""
        await self.cloud.stop(GATEWAY)

    async def start_gateway(self, **settings: Any) -> None:
        """Start it, with these settings besides its usual ones."""
        port = self.url.rpartition(":")[2]
        with_tokens = {"NEBULA_AUTH": "tokens", "NEBULA_TOKENS_FILE": str(self.tokens), "NEBULA_HTTP_PORT": port}
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}
        await self.cloud.start("gateway", name=GATEWAY, **with_tokens, NEBULA_REFUSALS_PER_MINUTE="100000", **texts)

    async def clean(self) -> None:
        """No VMs in the project `default`, and no token but that of `admin`, whatever a test has left."""
        if GATEWAY not in self.cloud.processes:
            await self.start_gateway()
        await self.allow()
        for each in (await self.send("GET", "/v1/projects/default/vms"))["items"]:
            if each["protected"]:
                await self.send("PATCH", f"/v1/projects/default/vms/{each['id']}?wait=30s", {"protected": False})
            await self.send("DELETE", f"/v1/projects/default/vms/{each['id']}?wait=30s")

    async def close(self) -> None:
        for context in self.contexts:
            with suppress(Error):
                await context.close()
        self.contexts.clear()


def line_of(name: str) -> str:
    return f"{name} {hashlib.sha256(f'{name}-token'.encode()).hexdigest()}"


@asynccontextmanager
async def bed(nodes: int = 1, **more: str) -> AsyncIterator[Bed]:
    """A platform with simulated nodes, a project `default`, an image `blank`, and an operator `admin`.

    `more`: further settings of its roles.
    """
    async with AsyncExitStack() as stack:
        seed_port = str(free_port())
        settings = {"NEBULA_SEED_PORT": seed_port, "NEBULA_NODE_TIMEOUT": "600", **more}
        made = await stack.enter_async_context(cloud(ROLES, **settings))
        await made.prepare()
        port, tokens = free_port(), made.home / "console.tokens"
        tokens.write_text(f"{line_of('admin')}\n")
        program = ["-m", "cli.main", "node", "--simulate", str(nodes)]
        often = {"NEBULA_HEARTBEAT_SECONDS": "0.5", "NEBULA_USAGE_SECONDS": "1"}
        await made.start(SIMULATION, program=program, NEBULA_SEED_URL=f"http://127.0.0.1:{seed_port}/", **often)
        url = f"http://127.0.0.1:{port}"
        admin = {"Authorization": "Bearer admin-token"}
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=60, headers=admin))
        found = Bed(made, url, tokens, http)
        await found.start_gateway()

        async def ready() -> bool:
            made.check()
            with suppress(httpx.TransportError):
                answer = await http.get("/v1/nodes")
                return answer.status_code == 200 and len(answer.json()["items"]) == nodes
            return False

        await eventually(ready, "the platform has its nodes", 60)
        await found.send("POST", "/v1/projects?wait=30s", {"id": "default", "name": "Default"})
        try:
            yield found
        finally:
            await found.close()
        assert found.faults == []
