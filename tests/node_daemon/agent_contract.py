"""What every hypervisor must say of its guests: their addresses, and what the agents in them say."""

import pytest

from domain.guest import Guest
from node_daemon.hypervisor.hypervisor import (
    AgentMissing,
    AgentSilent,
    Refused,
    Sighting,
)
from tests.node_daemon.beds import Bed
from tests.waiting import eventually


class AgentContract:
    async def test_addresses_are_those_of_the_interface_asked_for(self, bed: Bed) -> None:
        boot = await bed.boot()
        vm, mac = boot.wanted.vm, boot.wanted.mac
        await bed.hypervisor.start(boot)
        await bed.hypervisor.persist(vm)
        found = await bed.leased(boot)
        assert found.leases == tuple(sorted(found.leases))
        assert (await bed.hypervisor.addresses(vm, mac.upper())).leases == found.leases
        assert await bed.hypervisor.addresses(vm, "52:54:00:00:00:01") == Sighting()
        await bed.hypervisor.destroy(vm)
        assert await bed.hypervisor.addresses(vm, mac) == Sighting()

    async def test_the_agent_speaks_for_its_guest(self, bed: Bed) -> None:
        boot = await bed.boot()
        vm, mac, hypervisor = boot.wanted.vm, boot.wanted.mac, bed.hypervisor
        await hypervisor.start(boot)
        await bed.with_agent(vm)
        leases = tuple(lease.address for lease in (await bed.leased(boot)).leases)

        async def speaks() -> bool:
            return (await hypervisor.addresses(vm, mac)).agent == leases

        await eventually(speaks, "the agent's own word")
        await bed.without_agent(vm)
        assert (await hypervisor.addresses(vm, mac)).agent is None

    async def test_a_guest_speaks_for_itself(self, bed: Bed) -> None:
        boot = await bed.boot()
        vm, hypervisor = boot.wanted.vm, bed.hypervisor
        await hypervisor.start(boot)
        await bed.with_agent(vm)

        async def said() -> Guest | None:
            try:
                return await hypervisor.guest(vm)
            except AgentMissing:  # it is still booting
                return None

        guest: Guest = await eventually(said, "the guest's own word")
        assert guest.hostname == boot.wanted.name
        assert [each.mac for each in guest.interfaces or ()] == [boot.wanted.mac.lower()]
        root = {each.mountpoint: each for each in guest.filesystems or ()}["/"]
        assert root.total_bytes is not None
        assert root.used_bytes is not None
        assert 0 < root.used_bytes < root.total_bytes <= boot.wanted.disk_gib * 1024**3

    async def test_a_guest_without_an_agent_says_nothing(self, bed: Bed) -> None:
        boot = await bed.boot()
        await bed.hypervisor.start(boot)
        await bed.without_agent(boot.wanted.vm)
        with pytest.raises(AgentMissing):
            await bed.hypervisor.guest(boot.wanted.vm)

    async def test_nor_does_one_whose_agent_hangs(self, bed: Bed) -> None:
        boot = await bed.boot()
        vm = boot.wanted.vm
        await bed.hypervisor.start(boot)
        await bed.with_hung_agent(vm)

        async def silent() -> bool:
            try:
                await bed.hypervisor.guest(vm)
            except AgentSilent:
                return True
            except AgentMissing:
                return False
            raise AssertionError("it spoke")

        await eventually(silent, "an agent that says nothing")

    async def test_only_a_guest_that_runs_is_asked(self, bed: Bed) -> None:
        boot = await bed.boot()
        vm, hypervisor = boot.wanted.vm, bed.hypervisor

        async def refused() -> bool:
            with pytest.raises(Refused) as caught:
                await hypervisor.guest(vm)
            return not isinstance(caught.value, AgentMissing | AgentSilent)

        assert await refused(), "there is none"
        await hypervisor.start(boot)
        await hypervisor.persist(vm)
        await hypervisor.pause(vm)
        assert await refused(), "it stands still"
        await hypervisor.destroy(vm)
        assert await refused(), "it is off"
        foreign = await bed.boot()
        bed.define_foreign(foreign.wanted.vm, f"foreign-{foreign.wanted.vm}")
        vm = foreign.wanted.vm
        assert await refused(), "it is not ours"
