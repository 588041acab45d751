"""The life of a virtual machine.

    CreateVm ─► requested ──ScheduleVm──► scheduled ──report: on──► running ◄──report: on── stopped
                   │  ▲                       │                     │  ▲                       ▲
       no room     ▼  │ room appears          │ report: error       │  └── restart: boots + 1  │
               unschedulable ──ScheduleVm──►──┘      │              └──────report: off─────────┘
                                                     ▼
    node silent: lost ──next report──► what it is    failed ──StartVm──► (scheduled again, same node; requested
                                                                          again where it never had one)
    running ──PauseVm──► paused: its CPUs stand still        running, paused ──SuspendVm──► suspended: memory on disk
    ResumeVm, from either ─► running, in the same boot       StopVm by force, from either ─► stopped
    AbandonVm: nobody waits for `pending` any more           RetryVm: what failed is asked for again
    ResizeVm: `spec` is what it is to have, `running_size` what its domain was started with
    RebuildVm: `disk` + 1, `boots` + 1 ─► running, on a new disk
    RescueVm: `boots` + 1 ─► running, from a rescue disk, its own beside it; UnrescueVm ─► running, from its own
    gone off by itself, and its policy covers that ─► stopped ──RestartByPolicy, when due──► running, boots + 1
    ForgetVm, where the node is lost ─► deleted; the node lets go should it come back
    DeleteVm, from anywhere ─► desired `absent` ──report: absent──► deleted

The phase is what is true; `desired` (on, paused, suspended, off, absent) and `boots` (how often it was told to boot)
are what is wanted; `pending` is the operation that waits for the two to meet. Every pending operation has a deadline,
and every phase a command that leads out of it.

`verbs/` holds one file for each verb: when it is taken, its command, its event, what follows. `commands.py` and
`events.py` are the messages that are no verb's, `values.py` what they speak of; `rules.py`, `scheduling.py` and
`reports.py` decide, within the times of `deadlines.py`; `state.py` is the state, `evolution.py` what each event makes
of it, `boots.py` for the boots of the guest. `features.py` is what nodes have to know. `kind.py` is the kind itself.
"""

from domain.guest import HostKey as HostKey
from domain.vm.commands import *  # noqa: F403
from domain.vm.deadlines import *  # noqa: F403
from domain.vm.events import *  # noqa: F403
from domain.vm.evolution import *  # noqa: F403
from domain.vm.rules import *  # noqa: F403
from domain.vm.state import *  # noqa: F403
from domain.vm.values import *  # noqa: F403
from domain.vm.verbs.abandon import AbandonVm as AbandonVm, VmAbandoned as VmAbandoned
from domain.vm.verbs.change import ChangeVm as ChangeVm, VmChanged as VmChanged
from domain.vm.verbs.create import CreateVm as CreateVm, VmRequested as VmRequested
from domain.vm.verbs.delete import DeleteVm as DeleteVm, VmDeletionRequested as VmDeletionRequested
from domain.vm.verbs.forget import ForgetVm as ForgetVm, VmForgotten as VmForgotten
from domain.vm.verbs.pause import PauseVm as PauseVm, VmPauseRequested as VmPauseRequested
from domain.vm.verbs.rebuild import RebuildVm as RebuildVm, VmRebuildRequested as VmRebuildRequested
from domain.vm.verbs.resize import ResizeVm as ResizeVm, VmResized as VmResized
from domain.vm.verbs.restart import RestartVm as RestartVm, VmRestartRequested as VmRestartRequested
from domain.vm.verbs.resume import ResumeVm as ResumeVm, VmResumeRequested as VmResumeRequested
from domain.vm.verbs.retry import RetryVm as RetryVm, VmRetryRequested as VmRetryRequested
from domain.vm.verbs.start import StartVm as StartVm, VmStartRequested as VmStartRequested
from domain.vm.verbs.stop import StopVm as StopVm, VmStopRequested as VmStopRequested
from domain.vm.verbs.suspend import SuspendVm as SuspendVm, VmSuspendRequested as VmSuspendRequested
from domain.vm.verbs.tag import TagVm as TagVm, VmTagged as VmTagged
