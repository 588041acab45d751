"""The life of a virtual machine.

    CreateVm ─► requested ──ScheduleVm──► scheduled ──report: on──► running ◄──report: on── stopped
                   │  ▲                       │                     │  ▲                       ▲
       no room     ▼  │ room is free          │ report: error       │  └── restart: boots + 1  │
               unschedulable ──ScheduleVm──►──┘      │              └──────report: off─────────┘
                                                     ▼
    node lost: lost ──next report──► the reported phase   failed ──StartVm──► scheduled (requested, if it has no node)

    running ──PauseVm──► paused: its CPUs are stopped        running, paused ──SuspendVm──► suspended: memory on disk
    ResumeVm, from either ─► running, in the same boot       StopVm by force, from either ─► stopped
    AbandonVm: gives up `pending`                            RetryVm: repeats the verb that failed
    ResizeVm: `spec` is the desired size, `running_size` the size that its domain was started with
    RebuildVm: `disk` + 1, `boots` + 1 ─► running, on a new disk
    RescueVm: `boots` + 1 ─► running, from a rescue disk; its own is the second; UnrescueVm ─► running, from its own
    off by itself, and its restart policy covers the cause ─► stopped ──RestartByPolicy, when due──► running, boots + 1
    ForgetVm, if the node is lost ─► deleted; a node that comes back removes it
    DeleteVm, from any phase ─► desired `absent` ──report: absent──► deleted

The phase is the observed state. `desired` (on, paused, suspended, off, absent) and `boots` (how often it was ordered to
boot) are the desired state. `pending` is the operation that ends when both agree. Each pending operation has a
deadline, and from each phase some command leads to another one.

`verbs/` has one file for each verb: when it is accepted, its command, its event, and what follows. `commands.py` and
`events.py` are the other messages, `values.py` the types of their fields. `rules.py`, `scheduling.py` and `reports.py`
decide, with the times in `deadlines.py`. `state.py` is the state, and `evolution.py` says how each event changes it;
`boots.py` does that for the boots of the guest. `features.py`: what a node has to know. `kind.py`: the kind itself.
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
