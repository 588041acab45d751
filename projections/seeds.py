"""Seeds: the data that the data source serves to a guest, and the secrets that identify the guest.

A seed exists from the placement of its VM until the VM is deleted. The vault derives the secret of each boot; only its
hash is stored. The SSH keys of a VM's project are looked up at each request, so they are current. While a VM is being
started or restarted, the secrets of its last and its next boot are both valid, since the domain may still be the old
one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from domain import mac
from domain.base import Event, Sealed, unique
from domain.contract import SeedMedium
from domain.vm import Phase, Vm, VmStarted
from domain.vm.kind import VM
from eventstore.log.envelope import Ref
from eventstore.vault.vault import Erased
from projections import bulk
from projections.compare import Difference
from projections.database import Connection, Pool, clean, clean_json, fetch, parsed, select
from projections.model import Batch, ReadModel, Session, Step, changes
from projections.seed_hashes import hashed, hashes
from projections.storage import unsearched

#: Phases in which a VM's guest does not run. A boot may be ordered.
OFF = (Phase.STOPPED, Phase.SUSPENDED, Phase.FAILED)

DDL = """
CREATE TABLE seeds (
    project     text NOT NULL,
    vm          text NOT NULL,
    name        text NOT NULL,
    instance_id text NOT NULL,
    ssh_keys    text[] NOT NULL,
    user_data   json,
    boots       bigint NOT NULL,
    booted      bigint NOT NULL,
    disk        bigint NOT NULL,
    PRIMARY KEY (project, vm)
);
CREATE TABLE seed_secrets (
    secret_hash bytea NOT NULL,
    project     text NOT NULL,
    vm          text NOT NULL,
    boots       bigint NOT NULL,
    PRIMARY KEY (secret_hash, project, vm)
);
CREATE INDEX ON seed_secrets (project, vm);
""" + unsearched("seeds", "name", "instance_id", "ssh_keys", "user_data")
SEED_ROWS = bulk.Table.of(DDL, "seeds", ("project", "vm"))
SECRET_ROWS = bulk.Table.of(DDL, "seed_secrets", ("secret_hash", "project", "vm"))

#: Seconds after the guest's message that it is ready in which it still gets its user-data.
AFTER_READY = 60.0


@dataclass(frozen=True, slots=True)
class Access:
    """Who may have the seed of a VM now.

    `off`: the VM is off, and no boot is ordered. `on_disk`: the node puts the seed on a disk. `finished`: the guest has
    been ready for AFTER_READY seconds in its present boot. `node`: where the VM is placed.
    """

    mac: str
    simulated: bool = False
    off: bool = False
    on_disk: bool = False
    finished: bool = False
    node: str | None = None


NOBODY = Access(mac="", off=True)


def access(vm: Vm, boots: int, virt_type: str | None, mediums: Iterable[str | None], now: datetime) -> Access:
    """The access to the seed for one boot of a VM, on a node of that type, with images of these mediums."""
    ready = vm.ready
    return Access(
        mac=mac.of(vm),
        simulated=virt_type == "test",
        off=vm.phase in OFF and vm.boots <= vm.booted and vm.pending is None,
        on_disk=SeedMedium.DISK.value in mediums,
        finished=ready is not None and ready.boots == boots and (now - ready.at).total_seconds() > AFTER_READY,
        node=vm.node,
    )


@dataclass(frozen=True, slots=True)
class Seed:
    """The seed of one VM.

    `boots`: the last boot that was ordered. `booted`: the last boot that is known to have started. The secrets of the
    boots between the two are valid. Only in the result of `find`: `secret_boot`, the boot of the secret that was given,
    and `access`.
    """

    project: str
    vm: str
    name: str
    ssh_keys: tuple[str, ...]
    user_data: Sealed | None
    boots: int
    booted: int
    disk: int = 1
    secret_boot: int = 0
    access: Access = NOBODY

    @property
    def instance_id(self) -> str:
        """Constant for the life of a VM's disk: with another id a guest would behave as a new machine."""
        return self.vm if self.disk == 1 else f"{self.vm}-{self.disk}"

    @property
    def valid_boots(self) -> range:
        """The boots whose secrets are valid: at most the last two."""
        return range(max(self.booted, self.boots - 1, 1), self.boots + 1)


def evolve(seed: Seed | None, vm: Vm, event: Event) -> Seed | None:
    """The seed after an event of its VM; None if it has none. `vm` is the VM's state after the event."""
    if vm.phase is Phase.DELETED or vm.node is None:
        return None
    booted = seed.booted if seed else 0
    if isinstance(event, VmStarted):
        booted = event.boots
    return Seed(vm.project, vm.id, vm.name, vm.ssh_keys, vm.user_data, vm.boots, booted, vm.disk)


async def load(conn: Connection, batch: Batch) -> dict[Ref, Seed | None]:
    """The stored seeds of the VMs of a batch. A VM without a node has none."""
    requested = [ref for ref, vm in batch.states("vm").items() if vm.node is not None]
    if not requested:
        return {}
    stored = await select(
        conn,
        bulk.lookup("seeds", ("project", "vm"), "project, vm, name, ssh_keys, user_data, boots, booted, disk"),
        [[ref.project for ref in requested], [ref.id for ref in requested]],
    )
    return {Ref(row["project"], "vm", row["vm"]): _seed(row) for row in stored}


def fold(seeds: dict[Ref, Seed | None], step: Step[Vm]) -> None:
    if step.event is not None and step.row is not None and step.row.state is not None:
        ref = step.recorded.ref
        seeds[ref] = evolve(seeds.get(ref), step.row.state, step.event)


def _seed(row: Mapping[str, Any]) -> Seed:
    sealed = row["user_data"]
    return Seed(
        project=row["project"],
        vm=row["vm"],
        name=row["name"],
        ssh_keys=tuple(row["ssh_keys"]),
        user_data=Sealed.model_validate(sealed) if sealed is not None else None,
        boots=row["boots"],
        booted=row["booted"],
        disk=row["disk"],
    )


async def save(session: Session, before: Mapping[Ref, Seed | None], after: Mapping[Ref, Seed | None]) -> None:
    """Write the seeds that have changed, with the hashes of their secrets; delete those that are None.

    A seed whose key was destroyed has no hashes, so no secret finds it. Its row is kept: it follows from the log alone.
    """
    seeds = changes(before, after)
    if not seeds:
        return
    new, old = list[bulk.Values](), list[bulk.Values]()
    booting: dict[Ref, Seed] = {}
    for ref, seed in seeds.items():
        if seed is not None:
            earlier = before.get(ref)
            (old if earlier is not None else new).append(_values(seed))
            if earlier is None or earlier.valid_boots != seed.valid_boots:
                booting[ref] = seed
    found = await hashes(session.secrets, [(seed.vm, seed.valid_boots) for seed in booting.values()])
    secrets = [
        (each, seed.project, seed.vm, boot)
        for seed, hashes_ in zip(booting.values(), found, strict=True)
        for boot, each in zip(seed.valid_boots, hashes_, strict=False)
    ]
    ended = [(ref.project, ref.id) for ref, seed in seeds.items() if seed is None]
    changed = [(ref.project, ref.id) for ref in booting if before.get(ref) is not None]
    await bulk.delete(session.conn, SECRET_ROWS, [*ended, *changed], ("project", "vm"))
    await bulk.delete(session.conn, SEED_ROWS, ended)
    await bulk.write(session.conn, SEED_ROWS, new, old, many=session.many)
    await bulk.write(session.conn, SECRET_ROWS, secrets, (), many=session.many)


async def key_is_destroyed(session: Session, table: str, difference: Difference) -> bool:
    """Whether a hash cannot be derived again because its key was destroyed after the live row was made."""
    if table != "seed_secrets" or difference.what != "extra":
        return False
    project, vm = difference.key["project"], difference.key["vm"]
    cursor = await session.conn.execute("SELECT boots FROM seeds WHERE project = %s AND vm = %s", [project, vm])
    seed = await cursor.fetchone()
    if seed is None:
        return False
    try:
        await session.secrets.seed_secret(str(vm), seed["boots"])
    except Erased:
        return True
    return False


SEEDS = ReadModel(
    name="seeds",
    version=9,
    ddl=DDL,
    tables=("seeds", "seed_secrets"),
    early=("seed_secrets_project_vm_idx",),
    kinds=("vm",),
    load=load,
    fold=fold,
    save=save,
    served=False,
    excuse=key_is_destroyed,
)


def _values(seed: Seed) -> list[object]:
    sealed = clean_json(seed.user_data.model_dump_json()) if seed.user_data else None
    return [
        seed.project,
        seed.vm,
        clean(seed.name),
        seed.instance_id,
        [clean(key) for key in seed.ssh_keys],
        sealed,
        seed.boots,
        seed.booted,
        seed.disk,
    ]


async def find(pool: Pool, secret: str) -> tuple[Seed | None, int]:
    """The seed of a secret (None if unknown), with the SSH keys of its project and its access; and the log position.

    Raises ReadModelsUnavailable.
    """
    found = await fetch(
        pool,
        """SELECT s.*, h.boots AS secret_boot, p.state -> 'ssh_keys' AS project_keys, v.state::text AS vm_state,
               n.state -> 'info' ->> 'virt_type' AS virt_type,
               ARRAY(SELECT i.state ->> 'seed' FROM images i
                     WHERE i.id IN (v.state ->> 'image', v.state ->> 'rescue')) AS mediums
           FROM seed_secrets h JOIN seeds s USING (project, vm) LEFT JOIN projects p ON p.id = s.project
               JOIN vms v ON v.project = s.project AND v.id = s.vm LEFT JOIN nodes n ON n.id = v.node
           WHERE h.secret_hash = %(hash)s""",
        {"hash": hashed(secret)},
    )
    if found.row is None:
        return None, found.position
    seed = _seed(found.row)
    keys = unique((*seed.ssh_keys, *(found.row["project_keys"] or ())))
    vm = parsed(VM.stored, found.row["vm_state"])
    boots = found.row["secret_boot"]
    may = access(vm, boots, found.row["virt_type"], found.row["mediums"], datetime.now(UTC))
    return replace(seed, secret_boot=boots, ssh_keys=keys, access=may), found.position


async def valid_digests(pool: Pool, digests: Iterable[str], node: str | None = None) -> tuple[set[str], int]:
    """The digests (SHA-256 of secrets, in hex) that have a seed, and the log position.

    `node`: only those of VMs that are placed there. Raises ReadModelsUnavailable.
    """
    hashes_ = [bytes.fromhex(digest) for digest in digests]
    found = await fetch(
        pool,
        """SELECT h.secret_hash FROM seed_secrets h JOIN vms v ON v.project = h.project AND v.id = h.vm
           WHERE h.secret_hash = ANY(%(hashes)s) AND (%(node)s::text IS NULL OR v.node = %(node)s)""",
        {"hashes": hashes_, "node": node},
    )
    return {bytes(row["secret_hash"]).hex() for row in found.rows}, found.position
