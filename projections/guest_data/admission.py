"""Who may have the data of a guest: only the guest itself, and each call of a boot counts once."""

import hashlib
import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from domain.contract.guest_data import GuestCall, GuestSeed
from domain.mac import derived

#: Number of boots whose calls are known. The oldest is forgotten first; handlers then recognise its repeats.
MOST = 10_000


def stranger(
    seed: GuestSeed,
    client: str | None,
    server: str | None,
    neighbours: Callable[[str, str], frozenset[str]],
    *,
    posted: bool = False,
) -> str | None:
    """Why this client is not the guest of the seed; None if it is.

    The host itself may fetch a seed that it puts on a disk. It may not make the call of a guest (`posted`). Guests of
    simulated nodes have no interface, so any client may be one.
    """
    if seed.simulated:
        return None
    if client is None or server is None:
        return "the client has no address"
    if client == server:
        return None if seed.on_disk and not posted else "the client is the host"
    address = plain(client)
    found, mac = neighbours(address, plain(server)), seed.mac or derived(seed.vm)
    if found == {mac}:
        return None
    return f"{address} is not an address of the VM: it is used by {', '.join(sorted(found)) or 'no neighbour'}"


def plain(address: str) -> str:
    """The address without a zone; an IPv4 address that is written as IPv6 address as IPv4 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = parsed.ipv4_mapped if parsed.version == 6 else None
    return str(mapped or parsed)


@dataclass
class Called:
    """The calls of guests that were accepted: of each boot the first."""

    _calls: "OrderedDict[tuple[str, str | None], bytes]" = field(default_factory=OrderedDict)

    def before(self, boot: tuple[str, str | None], call: GuestCall) -> bool | None:
        """None if it is the first call of this boot, True if it repeats the first one, False if it is another one."""
        known = self._calls.get(boot)
        return None if known is None else known == digest(call)

    def note(self, boot: tuple[str, str | None], call: GuestCall) -> None:
        self._calls[boot] = digest(call)
        while len(self._calls) > MOST:
            self._calls.popitem(last=False)


def digest(call: GuestCall) -> bytes:
    return hashlib.sha256(call.model_dump_json().encode()).digest()
