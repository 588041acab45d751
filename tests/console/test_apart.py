"""The browser of these tests does not see interfaces that come and go."""

import asyncio
import os
import subprocess

import pytest
from playwright.async_api import Browser

from tests.console.bed import Bed, needs_browser

pytestmark = [needs_browser, pytest.mark.skipif(os.geteuid() != 0, reason="interfaces need root")]


async def test_a_page_loads_while_interfaces_come_and_go(cloud: Bed, chromium: Browser) -> None:
    loaded = asyncio.Event()

    async def change() -> None:
        name = f"apart{os.getpid() % 100000}"
        while not loaded.is_set():
            for command in (
                f"link add {name} type bridge",
                f"link set {name} up",
                f"address add 192.0.2.1/32 dev {name}",
                f"link delete {name}",
            ):
                await asyncio.to_thread(subprocess.run, ["ip", *command.split()], check=True)

    changing = asyncio.create_task(change())
    try:
        await cloud.signed_in(chromium, "admin")
    finally:
        loaded.set()
        await changing
