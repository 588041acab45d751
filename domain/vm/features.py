"""What a VM needs of a node beyond what every node knows, by name.

A field of the document that needs a feature (`Needs`, in `domain/contract/wanted.py`) has the same name in the state of
a VM, and the same default. The VM needs the feature as long as its field has another value.
"""

from dataclasses import fields

from domain.contract import Wanted
from domain.contract.wanted import VM_NEEDS
from domain.vm.state import Vm

_NEEDS = {each.name: VM_NEEDS[each.name] for each in fields(Vm) if each.name in VM_NEEDS}
if missing := VM_NEEDS.keys() - _NEEDS.keys():
    raise TypeError(f"the state of a VM lacks what the document has, and needs a feature for: {', '.join(missing)}")


def features(vm: Vm) -> tuple[str, ...]:
    """What a node has to know to start it."""
    return tuple(feature for name, feature in _NEEDS.items() if getattr(vm, name) != Wanted.model_fields[name].default)


def unknown(needed: tuple[str, ...], known: tuple[str, ...]) -> str | None:
    """Which of the needed features are not known, in words; None where all are."""
    missing = sorted(set(needed) - set(known))
    return f"does not know {', '.join(missing)}: its daemon is older" if missing else None
