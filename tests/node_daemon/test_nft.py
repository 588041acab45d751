"""The helper process for nftables: it does what the program `nft` does, and whatever happens to it, rules are made."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from node_daemon.hypervisor.guest_network import GuestNetwork
from node_daemon.hypervisor.hypervisor import Refused
from node_daemon.network import guest_rules, nft as module
from node_daemon.network.guest_rules import Chains
from node_daemon.network.nft import MOST_BROKEN, Nft

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes nftables")

#: A table without hooks, so no packet sees it.
TABLE = f"nebula-test-{os.getpid()}"


@pytest.fixture
def table() -> Iterator[str]:
    yield TABLE
    subprocess.run(["nft", "delete", "table", "bridge", TABLE], check=False, capture_output=True)


@pytest.fixture
async def nft() -> AsyncIterator[Nft]:
    made = Nft()
    yield made
    await made.close()


def listed() -> str:
    return subprocess.run(["nft", "list", "table", "bridge", TABLE], capture_output=True, text=True, check=False).stdout


def helper(nft: Nft) -> int:
    assert nft._process is not None
    return nft._process.pid


async def test_the_rules_of_a_guest_are_made_and_listed_as_the_program_lists_them(nft: Nft, table: str) -> None:
    guest, network = Chains("52:54:00:00:00:01", 7, 0x4E000001), GuestNetwork(("192.0.2.1",), has_ipv6=True)
    rules = [rule for rule in guest_rules.parts(table) if "hook" not in rule]
    rules += [*guest_rules.of_guest(table, "tap1", guest, network), guest_rules.here(table, guest.mac)]

    assert await nft.output("\n".join((*rules, ""))) == ""
    found = await nft.output(f"list table bridge {table}")

    assert found == listed()
    assert found is not None
    assert "sends-tap1" in found


async def test_of_commands_of_which_one_fails_none_takes_effect(nft: Nft, table: str) -> None:
    commands = f"add table bridge {table}\nadd chain bridge {table} one\nadd rule bridge {table} two accept\n"

    assert await nft.output(commands) is None
    with pytest.raises(Refused, match="No such file or directory"):
        await nft.run(commands)

    assert listed() == ""


async def test_one_helper_runs_all_commands(nft: Nft) -> None:
    await nft.output("list tables bridge")
    first = helper(nft)
    await asyncio.gather(*(nft.output("list tables bridge") for _ in range(5)))
    assert helper(nft) == first


async def test_a_helper_that_was_killed_is_started_again(nft: Nft, table: str) -> None:
    await nft.run(f"add table bridge {table}")
    first = helper(nft)
    os.kill(first, signal.SIGKILL)

    with capture_logs() as logs:
        await nft.run(f"add chain bridge {table} one")
        await nft.run(f"add chain bridge {table} two")

    assert "chain one" in listed()
    assert "chain two" in listed()
    assert helper(nft) != first
    assert [each["event"] for each in logs] in ([], ["the helper for nftables has ended"])


async def test_a_helper_that_hangs_is_ended(nft: Nft, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await nft.run(f"add table bridge {table}")
    first = helper(nft)
    os.kill(first, signal.SIGSTOP)
    monkeypatch.setattr(module, "COMMAND_SECONDS", 0.3)

    with pytest.raises(Refused, match="does not end"):
        await nft.run(f"add chain bridge {table} one")
    monkeypatch.undo()

    assert not Path(f"/proc/{first}").exists()
    assert await nft.output(f"list table bridge {table}") == listed()


async def test_the_answer_to_a_cancelled_command_is_not_taken_for_that_of_the_next(nft: Nft, table: str) -> None:
    await nft.run(f"add table bridge {table}")
    os.kill(helper(nft), signal.SIGSTOP)
    task = asyncio.create_task(nft.output("list tables bridge"))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await nft.output(f"list table bridge {table}") == listed()


async def test_without_libnftables_the_program_makes_the_rules(
    nft: Nft, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = module.HELPER.read_text()
    (tmp_path / "helper.py").write_text(text.replace("libnftables.so.1", "libnothing.so.1"))
    monkeypatch.setattr(module, "HELPER", tmp_path / "helper.py")

    with capture_logs() as logs:
        await nft.run(f"add table bridge {table}")
        await nft.run(f"add chain bridge {table} one")

    assert "chain one" in listed()
    assert [each["log_level"] for each in logs] == ["info"]


async def test_a_helper_that_always_ends_is_not_started_for_ever(
    nft: Nft, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "helper.py").write_text("import os\nos.abort()\n")
    monkeypatch.setattr(module, "HELPER", tmp_path / "helper.py")

    with capture_logs() as logs:
        for number in range(MOST_BROKEN + 2):
            await nft.run(f"add table bridge {table}\nadd chain bridge {table} c{number}")

    assert listed().count("chain c") == MOST_BROKEN + 2
    assert len(logs) == MOST_BROKEN
