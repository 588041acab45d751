"""All VMs of a node: a lane for each, and a tick that compares all wanted documents with all domains."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime

from nats.aio.client import Client
from nats.errors import Error as NatsError

from domain.contract import LEASE_SECONDS, ImageCache, NodeInfo, Power, Wanted
from node_daemon.asks.proofs import AskProofs
from node_daemon.hypervisor.hypervisor import Have, Hypervisor, Refused, Unreachable
from node_daemon.membership.membership import Membership
from node_daemon.membership.node_key import node_key
from node_daemon.membership.presence import BEATS, Pulse, utc_now
from node_daemon.network.addresses import EarlierBoots
from node_daemon.network.host_firewall import Firewall, NoFirewall
from node_daemon.reconcile.agreement import Agreement
from node_daemon.reconcile.executor import Executor
from node_daemon.reconcile.grace_periods import GracePeriods
from node_daemon.reconcile.host import describe
from node_daemon.reconcile.lane import Lane
from node_daemon.reconcile.plan import Host, plan
from node_daemon.reconcile.reports import Key, Reports, VmStatus, refused_status
from node_daemon.reconcile.resets import Resets
from node_daemon.reconcile.wanted import WantedDocuments
from node_daemon.storage.folder import identity
from runtime import logs
from runtime.settings import NodeSettings
from runtime.tasks.essential import Essential
from runtime.tasks.tasks import end, happens, to_the_end

log = logs.get(__name__)

#: Seconds after which the node asks handlers whether they know what it sees. If not, it repeats all reports.
FULL_REPORT = 20.0
#: The number of these questions between two looks for tombstones that are not stored any more, which are kept for an
#: hour. Refused and malformed documents are looked for each time.
LOOKS = 10
#: Seconds to wait for an answer to a question, besides the time until the next heartbeat.
ANSWER_SECONDS = 2.0


def no_tombstone(_: str) -> bool:
    return False


class Daemon:
    """Connects the wanted documents, the lanes, the hypervisor and the reports of a node. `run` ends when cancelled;
    guests keep running. `extra_tasks`: functions that run while the daemon works.
    """

    def __init__(
        self,
        settings: NodeSettings,
        bus: Client,
        hypervisor: Hypervisor,
        executor: Executor,
        host: Host,
        image_cache: Callable[[], ImageCache] | None = None,
        extra_tasks: Sequence[Callable[[], Coroutine[object, object, None]]] = (),
        clock: Callable[[], datetime] = utc_now,
        firewall: Firewall | None = None,
        asks: AskProofs | None = None,
    ) -> None:
        self._firewall = firewall or NoFirewall()
        self._settings = settings
        self._bus = bus
        self._hypervisor = hypervisor
        self._executor = executor
        self._host = host
        self._grace_periods = GracePeriods(settings.data_dir / "grace_periods", host.boot_id)
        self._resets = Resets(settings.data_dir / "resets")
        self._earlier = EarlierBoots(settings.data_dir / "addresses")
        self._extra_tasks = extra_tasks
        self._key = node_key(settings)
        asks = asks or AskProofs()
        asks.required = self._key is not None
        self._agreement = Agreement(min(settings.heartbeat_seconds, LEASE_SECONDS / BEATS) + ANSWER_SECONDS)
        self._membership = Membership(
            bus,
            settings.node,
            identity(settings.data_dir),
            self._describe,
            settings.take_over,
            self._key,
            asks.learn,
            self._agreement.take,
        )
        self._wanted = WantedDocuments(bus, settings.node, self._nudge, self._key)
        self._reports = Reports(bus, settings.node, 0, self._membership.age, self._key)
        self._pulse = Pulse(
            bus,
            settings.node,
            settings.heartbeat_seconds,
            lambda: self._wanted.position,
            self._membership,
            image_cache,
            lambda: len(self._wanted.malformed),
            clock,
            lambda: asks.refused,
            lambda: self._agreement.asks,
        )
        self._lanes: dict[str, tuple[Lane, asyncio.Task[None]]] = {}
        self._nudged = asyncio.Event()
        self._refusals: frozenset[Key] = frozenset()
        self._ended = False
        self._network_trouble: str | None = None
        self._firewall_trouble: str | None = None

    def projects(self) -> dict[str, str]:
        """The projects of the VMs that this node should have, by VM."""
        return {vm: each.project for vm, each in self._wanted.all().items()}

    async def run(self) -> None:
        """Work while this daemon holds the lease of its node; wait while it does not. Never returns."""
        try:
            async with Essential() as essential:
                essential.start("heartbeat", self._pulse.beat())
                essential.start("lease", self._membership.keep())
                essential.start("work", self._work_for_ever())
                await essential.for_ever()
        finally:
            await to_the_end(self._membership.leave())

    async def _work_for_ever(self) -> None:
        while True:
            lease = await self._membership.wait_for_lease()
            work = asyncio.create_task(self._work(lease))
            lease_ended = asyncio.create_task(self._membership.wait_for_end_of(lease))
            try:
                await asyncio.wait({work, lease_ended}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await end([work, lease_ended])
            if not work.cancelled():
                work.result()

    async def _work(self, lease: int) -> None:
        """All work under one lease. Never returns."""
        self._ended = False
        self._wanted = WantedDocuments(self._bus, self._settings.node, self._nudge, self._key)
        self._reports = Reports(self._bus, self._settings.node, lease, self._membership.age, self._key)
        try:
            async with Essential() as essential:
                essential.start("wanted documents", self._wanted.follow())
                essential.start("hypervisor", self._watch())
                essential.start("tick", self._tick_for_ever())
                essential.start("reports", self._report_for_ever())
                for start in self._extra_tasks:
                    essential.start("extra task", start())
                await essential.for_ever()
        finally:
            self._ended = True
            await end([task for _, task in self._lanes.values()])
            await self._reports.close()

    async def tick(self) -> None:
        """Wake the lane of each VM that is not as wanted or not as last reported."""
        try:
            have = await self._hypervisor.domains()
        except (Unreachable, Refused) as error:
            log.debug("cannot list domains", error=str(error))
            for vm in self._wanted.all():
                if not self._reports.is_removed(vm):
                    self._nudge(vm)
            self._report_refused(None)
            return
        documents = self._wanted.all()
        want = {vm: each for vm, each in documents.items() if vm in have or not self._reports.is_removed(vm)}
        unsettled = {step.vm for step in plan(want, have, self._host, self._grace_periods.remaining)}
        for vm in want:
            if vm in unsettled or self._needs_report(vm, have):
                self._nudge(vm)
        self._report_refused(have)
        refused = {each.id for each in self._wanted.refused()}
        self._note_orphans(tuple(sorted(have.keys() - documents.keys() - refused)))
        await self._ensure_network()
        await self._keep_firewall(want, have)

    async def _keep_firewall(self, want: Mapping[str, Wanted], have: Mapping[str, Have]) -> None:
        """Guests that have no rules of their own reach no other guest, so an error here leaves nothing open."""
        running = {vm: want[vm] for vm in want if vm in have and have[vm].power in (Power.ON, Power.PAUSED)}
        projects = {vm: each.project for vm, each in running.items()}
        macs = {vm: each.mac for vm, each in running.items()}
        trouble = None
        try:
            await self._firewall.keep(projects, {each.seed_url for each in running.values()}, macs)
        except Refused as error:
            trouble = str(error)
        if trouble is not None and trouble != self._firewall_trouble:
            log.error("guests are not isolated as they should be", error=trouble)
        self._firewall_trouble = trouble

    def _report_refused(self, have: Mapping[str, Have] | None) -> None:
        """Report the documents that this daemon is too old for. `have`: None while the hypervisor does not answer."""
        refused = {Key(each.kind, each.id): each for each in self._wanted.refused()}
        for kind, id_ in self._refusals.difference(refused):
            if kind != VmStatus.kind or id_ not in self._wanted.all():
                self._reports.forget(kind, id_)
        self._refusals = frozenset(refused)
        for each in refused.values():
            power = Power.UNKNOWN if have is None else have[each.id].power if each.id in have else Power.ABSENT
            self._reports.show(each.id, refused_status(each, power))

    def _needs_report(self, vm: str, have: Mapping[str, Have]) -> bool:
        """Whether the power state differs from the newest report, or that report names a step."""
        reported = self._reports.newest(vm)
        power = have[vm].power if vm in have else Power.ABSENT
        return reported is None or reported.power is not power or reported.step is not None

    def _note_orphans(self, orphans: tuple[str, ...]) -> None:
        if set(orphans) - set(self._pulse.orphans):
            log.warning("domains without a wanted document are left untouched", orphans=orphans)
        self._pulse.orphans = orphans

    async def _ensure_network(self) -> None:
        trouble = None
        try:
            await self._hypervisor.ensure_network()
        except (Unreachable, Refused) as error:
            trouble = str(error)
        if trouble is not None and self._network_trouble is None:
            log.error("the network of the guests is not available", network=self._settings.network, error=trouble)
        elif trouble is None and self._network_trouble is not None:
            log.info("the network of the guests is available again", network=self._settings.network)
        self._network_trouble = trouble

    async def _tick_for_ever(self) -> None:
        await self._wanted.loaded.wait()
        log.info("wanted documents read", vms=len(self._wanted.all()), position=self._wanted.position)
        while True:
            self._nudged.clear()
            await self.tick()
            await happens(self._nudged, self._settings.resync_seconds)

    async def _report_for_ever(self) -> None:
        rounds = 0
        while True:
            await asyncio.sleep(FULL_REPORT)
            rounds += 1
            try:
                await self._wanted.forget(self._reports.is_removed if rounds % LOOKS == 0 else no_tombstone)
                self._reports.forget_removed(self._wanted.all())
            except (NatsError, TimeoutError) as error:
                log.debug("cannot look for tombstones", error=repr(error))
            self._reports.repeat(await self._agreement.to_repeat(self._reports.facts))
            for vm, (_, task) in list(self._lanes.items()):
                if self._reports.is_removed(vm):
                    task.cancel()  # it is started again if the domain comes back

    def _nudge(self, vm: str | None) -> None:
        """Wake the lane of a VM; None: the tick. Without effect before all documents are read and after the end."""
        if self._ended:
            return
        if vm is None:
            self._nudged.set()
        elif self._wanted.loaded.is_set() and vm in self._wanted.all():
            self._lane(vm).nudge()
        elif vm in self._lanes:
            self._lanes[vm][0].nudge()  # its document was removed, so the lane ends

    async def _watch(self) -> None:
        await self._hypervisor.watch(self._nudge, self._note_reset, self._resets.note_watchdog)

    def _note_reset(self, vm: str) -> None:
        """Count a reset. A guest that resets itself all the time causes at most one report a second."""
        if self._resets.note(vm):
            self._nudge(vm)

    def _lane(self, vm: str) -> Lane:
        if vm in self._lanes:
            return self._lanes[vm][0]
        lane = Lane(
            vm,
            self._wanted,
            self._executor,
            self._hypervisor,
            self._reports,
            self._host,
            self._grace_periods,
            self._resets,
            self._earlier,
            self._membership.in_doubt,
        )
        task = asyncio.create_task(lane.run(), name=f"lane {vm}")
        self._lanes[vm] = (lane, task)
        task.add_done_callback(lambda ended: self._lane_ended(vm, ended))
        return lane

    def _lane_ended(self, vm: str, task: asyncio.Task[None]) -> None:
        if vm in self._lanes and self._lanes[vm][1] is task:
            del self._lanes[vm]
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.error("a lane failed; it is started again", vm=vm, exc_info=error)
        else:
            self._reports.forget(VmStatus.kind, vm)
            self._nudged.set()  # a refused document may have replaced the document of this VM

    async def _describe(self) -> NodeInfo:
        return describe(self._settings, await self._hypervisor.capacity())
