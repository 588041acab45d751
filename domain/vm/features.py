"""What a VM needs of a node beyond what every node knows, by name."""

from domain.contract import WATCHDOG, Watchdog
from domain.contract.wanted import RESCUE
from domain.vm.state import Vm


def features(vm: Vm) -> tuple[str, ...]:
    """What a node has to know to start it."""
    needed = (WATCHDOG,) if vm.watchdog is not Watchdog.DISABLED else ()
    return needed if vm.rescue is None else (*needed, RESCUE)


def unknown(needed: tuple[str, ...], known: tuple[str, ...]) -> str | None:
    """Which of the needed features are not known, in words; None where all are."""
    missing = sorted(set(needed) - set(known))
    return f"does not know {', '.join(missing)}: its daemon is older" if missing else None
