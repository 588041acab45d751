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
    gone off by itself, and its policy covers that ─► stopped ──RestartByPolicy, when due──► running, boots + 1
    ForgetVm, where the node is lost ─► deleted; the node lets go should it come back
    DeleteVm, from anywhere ─► desired `absent` ──report: absent──► deleted

The phase is what is true; `desired` (on, paused, suspended, off, absent) and `boots` (how often it was told to boot)
are what is wanted; `pending` is the operation that waits for the two to meet. Every pending operation has a deadline,
and every phase a command that leads out of it.

Which verb is taken in which phase stands in `table.py`: read it first. `commands.py` and `events.py` are the messages,
`values.py` what they speak of, `rules.py`, `scheduling.py` and `reports.py` decide, within the times of `deadlines.py`,
`state.py` is the state and evolves, `boots.py` for the boots of the guest,
`features.py` is what nodes have to know.
"""

from domain.vm.commands import *  # noqa: F403
from domain.vm.deadlines import *  # noqa: F403
from domain.vm.events import *  # noqa: F403
from domain.vm.rules import *  # noqa: F403
from domain.vm.state import *  # noqa: F403
from domain.vm.values import *  # noqa: F403
