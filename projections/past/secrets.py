"""The past holds no secrets."""

from collections.abc import Mapping, Sequence

from domain.base import Sealed


class NoSecrets:
    """Stands for the vault: no read model of the past may ask for it."""

    async def seed_secret(self, vm: str, boots: int) -> str:
        raise NotImplementedError(f"the past needs no secret of VM {vm} for boot {boots}")

    async def seed_secrets(self, boots_of: Mapping[str, Sequence[int]]) -> Mapping[str, Sequence[str]]:
        raise NotImplementedError(f"the past needs no secrets of {len(boots_of)} VMs")

    async def unsealed(self, sealed: Sealed) -> bytes:
        raise NotImplementedError(f"the past unseals nothing, such as under key {sealed.key}")
