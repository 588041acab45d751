"""Runs commands of nft in a helper process (`nft_helper.py`), or with the program `nft` where the helper does not work.

A start of a guest waits for its rules. With the program it would wait for a new process as well.
"""

import asyncio
import contextlib
import sys
from pathlib import Path

from node_daemon.network import programs
from node_daemon.network.nft_helper import ANSWER, NO_LIBRARY, REQUEST
from node_daemon.network.programs import COMMAND_SECONDS, refused
from runtime import logs

log = logs.get(__name__)

HELPER = Path(__file__).with_name("nft_helper.py")
#: After so many helpers in succession that ended before they had answered, none is started again.
MOST_BROKEN = 3


class Nft:
    """One helper, which is started when it is needed. One command at a time; further ones wait."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._broken = 0

    async def output(self, commands: str) -> str | None:
        """Run commands in one step: all take effect, or none. Returns their output; None if they fail.

        Raises Refused if there is no `nft`, or it hangs.
        """
        succeeded, printed = await self._run(commands)
        return printed if succeeded else None

    async def run(self, commands: str) -> None:
        """The same. Raises Refused if they fail."""
        succeeded, printed = await self._run(commands)
        if not succeeded:
            raise refused(f"nft failed: {' '.join(printed.split())[-200:]}")

    async def close(self) -> None:
        """End the helper. The next command starts another one."""
        async with self._turn:
            await self._end()

    async def _run(self, commands: str) -> tuple[bool, str]:
        async with self._turn:
            if self._broken < MOST_BROKEN:
                try:
                    async with asyncio.timeout(COMMAND_SECONDS):
                        answer = await self._ask(commands.encode())
                except TimeoutError:
                    await self._end()
                    raise refused("nft does not end") from None
                except (OSError, EOFError) as error:
                    await self._note_broken(error)
                except BaseException:  # its answer would be taken for that of the next command
                    await self._end()
                    raise
                else:
                    self._broken = 0
                    return answer
            return await programs.execute(("nft", "-f", "-"), commands)

    async def _ask(self, commands: bytes) -> tuple[bool, str]:
        """Raises OSError, EOFError if the helper cannot be started, or has ended."""
        process = await self._helper()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(REQUEST.pack(len(commands)) + commands)
        await process.stdin.drain()
        succeeded, size = ANSWER.unpack(await process.stdout.readexactly(ANSWER.size))
        return succeeded, (await process.stdout.readexactly(size)).decode(errors="replace")

    async def _helper(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            pipe = asyncio.subprocess.PIPE
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(HELPER)), stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
            )
        return self._process

    async def _note_broken(self, error: Exception) -> None:
        status = await self._end()
        self._broken = MOST_BROKEN if status == NO_LIBRARY else self._broken + 1
        if status == NO_LIBRARY:
            log.info("libnftables is not installed: rules are made with the program nft")
        else:
            log.warning("the helper for nftables has ended", status=status, error=repr(error), times=self._broken)

    async def _end(self) -> int | None:
        """End the helper. Returns its status; None without one."""
        process, self._process = self._process, None
        if process is None:
            return None
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(TimeoutError):  # a helper that has ended by itself has its own status
            return await asyncio.wait_for(process.wait(), 0.2)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        return await process.wait()
