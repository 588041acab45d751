"""The features that a node needs for a VM, by name.

A field of the document that needs a feature (`Needs` in `domain/contract/wanted.py`) has the same name and the same
default in the state of a VM. The VM needs the feature while its field has another value.
"""

from dataclasses import fields

from domain.contract import Wanted
from domain.contract.wanted import VM_NEEDS
from domain.vm.state import Vm

_NEEDS = {each.name: VM_NEEDS[each.name] for each in fields(Vm) if each.name in VM_NEEDS}
if missing := VM_NEEDS.keys() - _NEEDS.keys():
    raise TypeError(f"the state of a VM lacks these fields of the document with `Needs`: {', '.join(missing)}")


def features(vm: Vm) -> tuple[str, ...]:
    """The features that a node needs to start the VM."""
    return tuple(feature for name, feature in _NEEDS.items() if getattr(vm, name) != Wanted.model_fields[name].default)


def unknown(needed: tuple[str, ...], known: tuple[str, ...]) -> str | None:
    """The needed features that a node does not know, in words; None if it knows all."""
    missing = sorted(set(needed) - set(known))
    return f"does not know {', '.join(missing)}: its daemon is older" if missing else None
