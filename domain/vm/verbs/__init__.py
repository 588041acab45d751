"""The verbs of a VM: one file each, with its row (when it is accepted), its command, its event, `decide` and `evolve`.

Each file of this folder is imported here, and its `VERBS` are added. docs/extending.md says how to add one.
"""

import pkgutil
from importlib import import_module

from domain.verb import Effect
from domain.vm.verb import AnyVerb, VmVerb


def in_file(name: str) -> tuple[AnyVerb, ...]:
    """The verbs of a file. Raises TypeError for a file without verbs: no process starts with that."""
    verbs = getattr(import_module(name), "VERBS", ())
    if not verbs or not all(isinstance(verb, VmVerb) for verb in verbs):
        raise TypeError(f"{name} has no VERBS: a tuple of its values of VmVerb")
    return tuple(verbs)


def in_order(verb: AnyVerb) -> tuple[int, str]:
    """The sort key of a verb in descriptions: by its effect, then by its name."""
    return list(Effect).index(verb.effect), verb.name


VERBS: tuple[AnyVerb, ...] = tuple(
    sorted(
        (verb for module in pkgutil.iter_modules(__path__, f"{__name__}.") for verb in in_file(module.name)),
        key=in_order,
    )
)
