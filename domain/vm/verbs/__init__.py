"""The verbs of a VM: one file each, with its row (when it is taken), its command, its event, `decide` and `evolve`.

docs/extending.md says how to add one.
"""

from domain.vm.verb import AnyVerb
from domain.vm.verbs.abandon import ABANDON
from domain.vm.verbs.change import CHANGE
from domain.vm.verbs.create import CREATE
from domain.vm.verbs.delete import DELETE
from domain.vm.verbs.forget import FORGET
from domain.vm.verbs.pause import PAUSE
from domain.vm.verbs.rebuild import REBUILD
from domain.vm.verbs.rescue import RESCUE, UNRESCUE
from domain.vm.verbs.resize import RESIZE
from domain.vm.verbs.restart import RESTART
from domain.vm.verbs.resume import RESUME
from domain.vm.verbs.retry import RETRY
from domain.vm.verbs.start import START
from domain.vm.verbs.stop import STOP
from domain.vm.verbs.suspend import SUSPEND
from domain.vm.verbs.tag import TAG

VERBS: tuple[AnyVerb, ...] = (
    CREATE,
    START,
    STOP,
    RESTART,
    PAUSE,
    SUSPEND,
    RESUME,
    RESIZE,
    REBUILD,
    RESCUE,
    UNRESCUE,
    RETRY,
    ABANDON,
    FORGET,
    CHANGE,
    DELETE,
    TAG,
)
