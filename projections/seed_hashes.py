"""The hashes of the secrets that identify guests. The vault derives the secrets; only their hashes are stored."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence

from eventstore.vault.vault import Erased, WrongMasterKey
from projections.model import Secrets
from runtime import logs

log = logs.get(__name__)

#: For at least so many VMs, the vault is asked for all of them together.
TOGETHER = 64

Boots = tuple[str, Sequence[int]]
"""The id of a VM, and numbers of its boots."""


def hashed(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


async def hashes(secrets: Secrets, wanted: Sequence[Boots]) -> list[list[bytes]]:
    """The hashes of the secrets of these boots; none for a VM whose key was destroyed or cannot be opened."""
    boots_of = dict(wanted)
    known: Mapping[str, Sequence[str]] = {}
    if len(boots_of) == len(wanted) >= TOGETHER:  # a stranger may have used the id of a VM in another project
        known = await secrets.seed_secrets(boots_of)
    others = iter(await asyncio.gather(*(_hashes(secrets, vm, boots) for vm, boots in wanted if vm not in known)))
    return [[hashed(secret) for secret in known[vm]] if vm in known else next(others) for vm, _ in wanted]


async def _hashes(secrets: Secrets, vm: str, boots: Sequence[int]) -> list[bytes]:
    try:
        return [hashed(await secrets.seed_secret(vm, boot)) for boot in boots]
    except Erased:
        return []
    except WrongMasterKey as error:
        log.error(
            "a guest's secrets cannot be derived: put the right master key in its place, then run `nebula rebuild`",
            vm=vm,
            error=str(error),
        )
        return []
