"""What has to be so after an upgrade under load: the log, the read models, the nodes and the feeds agree."""

from collections.abc import Iterator

from domain.contract import Power
from eventstore.integrity.audit import verify_log
from eventstore.integrity.checkpoints import public_keys
from eventstore.vault.vault import Vault
from handlers.world.world import World
from node_daemon.simulation.host_store import HostStore
from node_daemon.simulation.simulated_host import stored_domains
from projections import rebuild
from runtime.local.servers import PostgresRole
from tests.cluster.checks import kept, within_capacity
from tests.soak.compare import books
from tests.upgrade.bed import FLEETS, Bed
from tests.upgrade.load import PROJECT, VMS, Client, Seen
from tests.waiting import eventually


async def differences(made: Bed, client: Client, seen: Seen) -> list[str]:
    """Everything that is not as it has to be."""
    await eventually(lambda: _all_ready(client, seen), "all VMs that nobody deletes are up, and their guests ready", 60)
    events = await made.events()
    first, last = min(seen.fed, default=0), max(seen.fed, default=0)  # guests may report after the feed was closed
    own = [one.position for one in events if one.ref.project == PROJECT and first <= one.position <= last]
    wrong = [*seen.wrong, *kept(events, seen.operations), *within_capacity(events)]
    if seen.fed != own:
        wrong.append(f"the feed has {len(seen.fed)} events, the log {len(own)}")
    world = World()
    for one in events:
        fault = world.take(one)
        if fault is not None:
            wrong.append(f"position {one.position}: {fault.reason}")
    wrong += books(world)
    wrong += _running(made, seen)
    wrong += await _verified(made)
    parked = (await client.call("GET", "/v1/parked"))["items"]
    wrong += [f"parked: {each}" for each in parked]
    return [*wrong, *_failures(made)]


async def _all_ready(client: Client, seen: Seen) -> bool:
    vms = [await client.call("GET", f"{VMS}/{vm}") for vm in seen.kept]
    return all(vm["phase"] == "running" and vm["ready"] for vm in vms)


def _running(made: Bed, seen: Seen) -> Iterator[str]:
    """VMs that do not run on exactly one node, by what the simulated hosts have stored."""
    found: dict[str, list[str]] = {}
    for fleet in FLEETS:
        store = HostStore(made.home / "hosts" / f"{fleet}-0" / f"simulated-{fleet}" / "hosts.sqlite")
        for number in range(1, made.nodes + 1):
            name = f"{fleet}-{number:03d}"
            for vm, have in stored_domains(store, name).items():
                if have.power is Power.ON:
                    found.setdefault(vm, []).append(name)
        store.close()
    for vm in seen.kept:
        if len(found.get(vm, [])) != 1:
            yield f"VM {vm} runs on {found.get(vm, [])}"


async def _verified(made: Bed) -> list[str]:
    """The findings of `verify log` and `verify views`."""
    async with made.bus() as nc:
        log = await verify_log(nc, keys=public_keys(made.keys / "checkpoint.pub"), event_keys=made.event_keys)
        vault = Vault.of(nc, made.keys / "master.key")
        views = await rebuild.verify(nc, made.dsn(PostgresRole.PROJECTIONS), vault, made.event_keys)
    found = [f"verify log: {finding}" for finding in log.findings]
    return found + [f"verify views: {table}" for table in views.differing]


def _failures(made: Bed) -> Iterator[str]:
    """What processes logged that nobody should have to read."""
    for name in made.processes:
        for line in made.log(name).read_text(errors="replace").splitlines():
            if "Traceback" in line or "did not stop in time" in line:
                yield f"{name} logged: {line}"
