"""Runs the programs of the host's firewall: iptables, ip6tables and nft."""

import asyncio
import tempfile

from node_daemon.hypervisor.hypervisor import Refused

#: Seconds for one command.
COMMAND_SECONDS = 20.0


async def output(*argv: str, given: str = "") -> str | None:
    """The output of a command, with `given` as its input; None if it fails.

    Raises Refused if the program is missing or hangs.
    """
    succeeded, out = await execute(argv, given)
    return out if succeeded else None


async def run(*argv: str, given: str = "") -> None:
    """Run a command, with `given` as its input. Raises Refused if it fails."""
    succeeded, out = await execute(argv, given)
    if not succeeded:
        raise refused(f"{' '.join(argv)} failed: {' '.join(out.split())[-200:]}")


async def execute(argv: tuple[str, ...], given: str = "") -> tuple[bool, str]:
    """Whether a command succeeds, and what it prints. Raises Refused if the program is missing or hangs."""
    pipe, merged = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
    with tempfile.TemporaryFile() as file:  # not a pipe: a program may end before it has read its input
        file.write(given.encode())
        file.seek(0)
        try:
            process = await asyncio.create_subprocess_exec(*argv, stdin=file, stdout=pipe, stderr=merged)
        except OSError as error:
            raise refused(f"{argv[0]} cannot be run: {error.strerror}") from error
    try:
        async with asyncio.timeout(COMMAND_SECONDS):
            out, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise refused(f"{argv[0]} does not end") from None
    return process.returncode == 0, out.decode(errors="replace")


def refused(detail: str) -> Refused:
    what = "the firewall of this node cannot protect it from its guests"
    how = "run the node as root with iptables and nft installed, or set NEBULA_GUEST_FIREWALL=false"
    return Refused(f"{what}: {detail}; {how}, then start the VM", code="filter_missing")
