"""What every hypervisor must do: one suite for the simulator, for libvirt's test driver and for real QEMU.

A subclass gives a `bed`: the hypervisor, and the things that happen to it without the daemon's doing.
"""

import asyncio
import uuid
from dataclasses import replace

import pytest

from domain.contract import Power
from node_daemon.hypervisor.domain_xml import domain_name
from node_daemon.hypervisor.hypervisor import (
    Have,
    Refused,
    Sighting,
    Unreachable,
    size_of,
)
from node_daemon.usage.averages import COUNTERS
from runtime.tasks.tasks import end
from tests.node_daemon.agent_contract import AgentContract
from tests.node_daemon.beds import Bed, boots
from tests.node_daemon.documents import new_vm
from tests.waiting import eventually


class HypervisorContract(AgentContract):
    async def test_nothing(self, bed: Bed) -> None:
        vm = new_vm()
        assert await bed.hypervisor.look(vm) == Have(vm=vm, power=Power.ABSENT)
        assert vm not in await bed.hypervisor.domains()
        await bed.hypervisor.shutdown(vm)
        await bed.hypervisor.pause(vm)
        await bed.hypervisor.unpause(vm)
        await bed.hypervisor.suspend(vm, 60)
        await bed.hypervisor.restore(vm, "host-boot", 60)
        await bed.hypervisor.discard(vm)
        await bed.hypervisor.destroy(vm)
        await bed.hypervisor.undefine(vm)
        assert await bed.hypervisor.addresses(vm, "52:54:00:00:00:01") == Sighting()

    async def test_a_life(self, bed: Bed) -> None:
        boot = await bed.boot()
        vm, hypervisor = boot.wanted.vm, bed.hypervisor
        started = await hypervisor.start(boot)
        assert started == Have(
            vm,
            Power.ON,
            boots=1,
            epoch=1,
            generation=1,
            size=size_of(boot.wanted),
            host_boot="host-boot",
            persistent=False,
        )
        assert await hypervisor.look(vm) == started
        await hypervisor.persist(vm)
        await hypervisor.persist(vm)
        assert await hypervisor.look(vm) == replace(started, persistent=True)
        assert (await hypervisor.domains())[vm] == replace(started, persistent=True)
        await hypervisor.destroy(vm)
        await hypervisor.destroy(vm)
        assert await hypervisor.look(vm) == replace(started, power=Power.OFF, forced=True, persistent=True)

        restarted = await hypervisor.start(boots(boot, 2))
        assert (restarted.boots, restarted.generation, restarted.persistent) == (2, 2, False)
        assert await hypervisor.look(vm) == restarted
        await hypervisor.persist(vm)
        assert (await hypervisor.look(vm)).persistent
        await hypervisor.destroy(vm)
        await hypervisor.undefine(vm)
        assert await hypervisor.look(vm) == Have(vm=vm, power=Power.ABSENT)

    async def test_what_runs_is_not_started_again(self, bed: Bed) -> None:
        boot = await bed.boot()
        await bed.hypervisor.start(boot)
        with pytest.raises(Refused) as caught:
            await bed.hypervisor.start(boots(boot, 2))
        assert not caught.value.invalid
        assert (await bed.hypervisor.look(boot.wanted.vm)).boots == 1

    async def test_a_guest_stands_still_and_goes_on(self, bed: Bed) -> None:
        boot = await bed.boot()
        vm, hypervisor = boot.wanted.vm, bed.hypervisor
        await hypervisor.start(boot)
        await hypervisor.pause(vm)
        await hypervisor.pause(vm)
        assert (await hypervisor.look(vm)).power is Power.PAUSED
        assert not (await hypervisor.look(vm)).persistent
        await hypervisor.persist(vm)
        paused = await hypervisor.look(vm)
        assert (paused.power, paused.persistent, paused.stalled, paused.boots) == (Power.PAUSED, True, False, 1)
        await hypervisor.unpause(vm)
        await hypervisor.unpause(vm)
        assert (await hypervisor.look(vm)).power is Power.ON
        await hypervisor.pause(vm)
        await hypervisor.destroy(vm)
        assert (await hypervisor.look(vm)).power is Power.OFF

    @pytest.mark.parametrize("paused", [False, True])
    async def test_a_guest_is_suspended_and_goes_on(self, bed: Bed, paused: bool) -> None:
        boot = await bed.boot()
        vm, hypervisor = boot.wanted.vm, bed.hypervisor
        await hypervisor.start(boot)
        with pytest.raises(Refused):
            await hypervisor.suspend(vm, 60)
        await hypervisor.persist(vm)
        if paused:
            await hypervisor.pause(vm)
        await hypervisor.suspend(vm, 60)
        await hypervisor.suspend(vm, 60)
        seen = await hypervisor.look(vm)
        assert (seen.power, seen.boots, seen.generation, seen.host_boot) == (Power.SUSPENDED, 1, 1, "host-boot")
        assert (await hypervisor.domains())[vm] == seen
        await hypervisor.restore(vm, "the next boot", 60)
        await hypervisor.restore(vm, "the next boot", 60)
        assert (await hypervisor.look(vm)).power in ((Power.ON, Power.PAUSED) if paused else (Power.ON,))
        await hypervisor.unpause(vm)
        again = await hypervisor.look(vm)
        assert (again.power, again.boots, again.persistent) == (Power.ON, 1, True)
        await hypervisor.destroy(vm)
        off = await hypervisor.look(vm)
        assert (off.power, off.boots, off.host_boot) == (Power.OFF, 1, "the next boot")

    async def test_what_is_suspended_can_be_thrown_away(self, bed: Bed) -> None:
        boot = await bed.boot()
        vm, hypervisor = boot.wanted.vm, bed.hypervisor
        await hypervisor.start(boot)
        await hypervisor.persist(vm)
        await hypervisor.suspend(vm, 60)
        await hypervisor.discard(vm, leftover=True)
        assert (await hypervisor.look(vm)).power is Power.SUSPENDED, "a leftover is beside a domain that runs"
        await hypervisor.discard(vm)
        await hypervisor.discard(vm)
        assert (await hypervisor.look(vm)).power is Power.OFF
        await hypervisor.start(boots(boot, 2))
        await hypervisor.persist(vm)
        await hypervisor.suspend(vm, 60)
        await hypervisor.undefine(vm)
        assert await hypervisor.look(vm) == Have(vm=vm, power=Power.ABSENT)

    async def test_a_domain_that_was_never_kept_is_gone_once_off(self, bed: Bed) -> None:
        boot = await bed.boot()
        await bed.hypervisor.start(boot)
        await bed.hypervisor.destroy(boot.wanted.vm)
        assert (await bed.hypervisor.look(boot.wanted.vm)).power is Power.ABSENT
        with pytest.raises(Refused):
            await bed.hypervisor.persist(boot.wanted.vm)

    async def test_what_was_kept_last_shows_once_it_is_off(self, bed: Bed) -> None:
        boot = await bed.boot()
        vm = boot.wanted.vm
        await bed.hypervisor.start(boot)
        await bed.hypervisor.persist(vm)
        await bed.hypervisor.destroy(vm)
        await bed.hypervisor.start(boots(boot, 2))
        await bed.hypervisor.destroy(vm)
        have = await bed.hypervisor.look(vm)
        assert (have.power, have.boots, have.generation) == (Power.OFF, 1, 1)

    async def test_a_guest_that_is_up_hears_a_shutdown(self, bed: Bed) -> None:
        boot = await bed.boot()
        vm = boot.wanted.vm
        await bed.hypervisor.start(boot)
        await bed.hypervisor.persist(vm)

        async def ask() -> bool:
            await bed.hypervisor.shutdown(vm)
            return (await bed.hypervisor.look(vm)).power is Power.OFF

        await eventually(ask, "the guest powers off")
        assert (await bed.hypervisor.look(vm)).cause == "guest"
        await bed.hypervisor.start(boots(boot, 2))
        assert (await bed.hypervisor.look(vm)).cause is None
        await bed.hypervisor.persist(vm)
        await bed.hypervisor.destroy(vm)
        assert (await bed.hypervisor.look(vm)).cause is None

    async def test_a_guest_powers_itself_off(self, bed: Bed) -> None:
        kept, transient = await bed.boot(), await bed.boot()
        for boot in (kept, transient):
            await bed.hypervisor.start(boot)
        await bed.hypervisor.persist(kept.wanted.vm)
        for boot in (kept, transient):
            await bed.power_off(boot.wanted.vm)
        have = await bed.off(kept.wanted.vm)
        assert (have.power, have.cause, have.boots) == (Power.OFF, "guest", 1)
        assert (await bed.off(transient.wanted.vm)).power is Power.ABSENT

    async def test_a_domain_dies(self, bed: Bed) -> None:
        boot = await bed.boot()
        await bed.hypervisor.start(boot)
        await bed.hypervisor.persist(boot.wanted.vm)
        await bed.crash(boot.wanted.vm)
        have = await bed.off(boot.wanted.vm)
        assert (have.power, have.cause) == (Power.OFF, "crashed")

    async def test_foreign_domains_are_seen_and_never_touched(self, bed: Bed) -> None:
        same_uuid, same_name = await bed.boot(), await bed.boot()
        bed.define_foreign(same_uuid.wanted.vm, f"foreign-{same_uuid.wanted.vm}")
        bed.define_foreign(str(uuid.uuid4()), domain_name(same_name.wanted.vm))
        for boot in (same_uuid, same_name):
            vm = boot.wanted.vm
            assert (await bed.hypervisor.look(vm)).foreign
            assert vm not in await bed.hypervisor.domains()
            with pytest.raises(Refused):
                await bed.hypervisor.start(boot)
            await bed.hypervisor.shutdown(vm)
            await bed.hypervisor.destroy(vm)
            await bed.hypervisor.undefine(vm)
            assert (await bed.hypervisor.look(vm)).foreign

    async def test_what_makes_no_sense_is_refused_for_good(self, bed: Bed) -> None:
        boot = await bed.boot()
        boot = replace(boot, wanted=boot.wanted.model_copy(update={"mac": "not a mac"}))  # no document says so
        with pytest.raises(Refused) as caught:
            await bed.hypervisor.start(boot)
        assert caught.value.invalid
        assert (await bed.hypervisor.look(boot.wanted.vm)).power is Power.ABSENT

    async def test_domains_outlive_the_daemon(self, bed: Bed) -> None:
        running, off = await bed.boot(), await bed.boot()
        for boot in (running, off):
            await bed.hypervisor.start(boot)
        await bed.hypervisor.persist(off.wanted.vm)
        await bed.hypervisor.destroy(off.wanted.vm)
        had = [await bed.hypervisor.look(boot.wanted.vm) for boot in (running, off)]
        again = await bed.again()
        assert [await again.look(boot.wanted.vm) for boot in (running, off)] == had
        found = await again.domains()
        assert [found[boot.wanted.vm] for boot in (running, off)] == had

    async def test_the_usage_of_guests_in_memory(self, bed: Bed) -> None:
        running, paused, off, transient = [await bed.boot() for _ in range(4)]
        bed.define_foreign(str(uuid.uuid4()), domain_name(new_vm()))
        hypervisor = bed.hypervisor
        for boot in (running, paused, off, transient):
            await hypervisor.start(boot)
        await hypervisor.persist(off.wanted.vm)
        await hypervisor.pause(paused.wanted.vm)
        for boot in (off, transient):
            await hypervisor.destroy(boot.wanted.vm)
        before = await hypervisor.usage()
        vm, still = running.wanted.vm, paused.wanted.vm
        assert before.keys() >= {vm, still}
        assert not before.keys() & {off.wanted.vm, transient.wanted.vm}
        assert all(domain_name(each) for each in before), "no foreign ones"
        assert (before[vm].state, before[still].state) == (1, 3)
        assert before[vm].vcpus in (None, running.wanted.vcpus)
        assert before[vm].memory_maximum in (None, running.wanted.memory_mib * 1024**2)
        after = await hypervisor.usage()
        while any(after[each].sources != before[each].sources for each in (vm, still)):
            before, after = after, await hypervisor.usage()  # libvirt leaves out what a guest is busy with
        for each in (vm, still):
            for name in COUNTERS:
                earlier, later = getattr(before[each].totals, name), getattr(after[each].totals, name)
                assert (earlier is None) == (later is None) and (earlier is None or later >= earlier), name
        await hypervisor.destroy(vm)
        await hypervisor.start(boots(running, 2))
        assert (await hypervisor.usage())[vm].boot != before[vm].boot

    async def test_events_nudge(self, bed: Bed) -> None:
        nudges: list[str | None] = []
        watch = asyncio.create_task(bed.hypervisor.watch(nudges.append))
        await eventually(lambda: nudges == [None], "the nudge after connecting")
        boot = await bed.boot()
        vm = boot.wanted.vm
        for act in (
            lambda: bed.hypervisor.start(boot),
            lambda: bed.hypervisor.persist(vm),
            lambda: bed.hypervisor.destroy(vm),
            lambda: bed.hypervisor.undefine(vm),
        ):
            nudges.clear()
            await act()
            await eventually(lambda: vm in nudges, "the nudge of an act")
        await end([watch])

    async def test_many_at_once(self, bed: Bed) -> None:
        made = [await bed.boot() for _ in range(4)]
        await asyncio.gather(*(bed.hypervisor.start(boot) for boot in made))
        await asyncio.gather(*(bed.hypervisor.persist(boot.wanted.vm) for boot in made))
        found = await bed.hypervisor.domains()
        assert all(found[boot.wanted.vm].persistent for boot in made)

    async def test_capacity_and_network(self, bed: Bed) -> None:
        capacity = await bed.hypervisor.capacity()
        assert capacity.vcpus > 0
        assert capacity.memory_mib > 64
        await bed.hypervisor.ensure_network()
        without = await bed.without_network()
        with pytest.raises(Refused) as caught:
            await without.ensure_network()
        assert caught.value.code == "network_missing"
        boot = await bed.boot()
        with pytest.raises(Refused) as caught:
            await without.start(boot)
        assert (caught.value.code, caught.value.invalid) == ("network_missing", False)
        assert (await bed.hypervisor.look(boot.wanted.vm)).power is Power.ABSENT

    async def test_nobody_answers(self, bed: Bed) -> None:
        away = await bed.unreachable()
        with pytest.raises(Unreachable):
            await away.look(new_vm())
        with pytest.raises(Unreachable):
            await away.domains()
        with pytest.raises(Unreachable):
            await away.usage()
