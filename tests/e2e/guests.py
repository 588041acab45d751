"""A real guest in the tests: what is heard of it, and what it is made to do."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import libvirt_qemu

from tests.e2e.platform import Json, Platform
from tests.waiting import eventually


@dataclass(frozen=True)
class Guest:
    """The guest of one VM: `path` is the VM's in the API, `domain` libvirt's."""

    up: Platform
    path: str
    domain: Any

    @property
    def vm(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    async def asked(self) -> httpx.Response:
        """What it says of itself, or why it does not."""
        async with self.up.client() as http:
            return await http.get(f"{self.path}/guest")

    async def agent_answers(self) -> None:
        async def answers() -> bool:
            return (await self.asked()).is_success

        await eventually(answers, "its agent answers", seconds=240)

    async def runs(self, script: str) -> None:
        """Have it run a shell script, in a second. Its agent has to answer."""
        arguments = {"path": "/bin/sh", "arg": ["-c", f"sleep 1; {script}"]}
        runs = json.dumps({"execute": "guest-exec", "arguments": arguments})
        await asyncio.to_thread(libvirt_qemu.qemuAgentCommand, self.domain, runs, 30, 0)

    async def until_ready(self, guest_boots: int) -> Json:
        """The VM, once its guest has said in its so many-th boot that it is ready, and has an address."""
        shown: Json = {}

        async def ready() -> bool:
            shown.update(await self.up.call("GET", self.path))
            return bool(shown["ready"] and shown["addresses"] and shown["guest_boots"] >= guest_boots)

        try:
            await eventually(ready, f"ready in boot {guest_boots}", seconds=500)
        except AssertionError as error:
            written = (self.up.home / "node" / "consoles" / f"{self.vm}.log").read_text(errors="replace")
            raise AssertionError(f"{error}\n{json.dumps(shown, indent=1)}\n{written[-4000:]}") from None
        return shown

    async def events(self, *types: str) -> list[Json]:
        """Its events of these types, in order."""
        page = await self.up.call("GET", f"/v1/events?vm={self.vm}&limit=500")
        return [event for event in page["items"] if kind(event) in types]

    async def until_told(self, expected: list[str], *types: str) -> list[Json]:
        """Its events of these types, once they are what is expected."""

        async def told() -> list[Json] | None:
            events = await self.events(*types)
            return events if [kind(event) for event in events] == expected else None

        found: list[Json] = await eventually(told, f"the events {expected}", seconds=240)
        return found


def kind(event: Json) -> str:
    name: str = event["type"].rsplit(".", 1)[-1]
    return name


async def key_pair(file: Path, comment: str) -> str:
    """Make an SSH key in a file, and say its public half, as one line."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(file)]
    assert await (await asyncio.create_subprocess_exec(*command)).wait() == 0
    return file.with_suffix(".pub").read_text().strip()


async def over_ssh(found: Json, key: Path, command: str) -> str:
    """The output of a command in the guest of a VM that is ready, by somebody who has the key of its user."""
    address = found["addresses"][0]
    known = key.with_suffix(".known_hosts")
    known.write_text("".join(f"{address} {each['type']} {each['key']}\n" for each in found["host_keys"]))
    options = {"BatchMode": "yes", "ConnectTimeout": "60", "IdentitiesOnly": "yes", "StrictHostKeyChecking": "yes"}
    options |= {"UserKnownHostsFile": str(known), "GlobalKnownHostsFile": "/dev/null", "LogLevel": "ERROR"}
    flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *("ssh", "-F", "/dev/null", "-i", str(key), *flags, f"debian@{address}", command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, f"ssh to {address}: {err.decode()}"
    return out.decode()
