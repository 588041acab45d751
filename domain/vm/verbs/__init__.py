"""The verbs of a VM: one file each, with its row (when it is taken), its command, its event, `decide` and `evolve`.

A file of this folder is found by itself: its `VERBS` are verbs of a VM. docs/extending.md says how to add one.
"""

import pkgutil
from importlib import import_module

from domain.verb import Effect
from domain.vm.verb import AnyVerb, VmVerb


def in_file(name: str) -> tuple[AnyVerb, ...]:
    """The verbs of a file. Raises TypeError for a file without any: it does not start."""
    verbs = getattr(import_module(name), "VERBS", ())
    if not verbs or not all(isinstance(verb, VmVerb) for verb in verbs):
        raise TypeError(f"{name} has no VERBS: a tuple of its values of VmVerb")
    return tuple(verbs)


def in_order(verb: AnyVerb) -> tuple[int, str]:
    """Where a verb stands in descriptions: by what it does to the VM, then by its name."""
    return list(Effect).index(verb.effect), verb.name


VERBS: tuple[AnyVerb, ...] = tuple(
    sorted(
        (verb for module in pkgutil.iter_modules(__path__, f"{__name__}.") for verb in in_file(module.name)),
        key=in_order,
    )
)
