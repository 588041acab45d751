"""The reads of VMs, and of what a VM's node or guest is asked for."""

from domain.access import EVENT_READ, VM_CONSOLE, VM_CREATE, VM_READ
from domain.guest import Guest
from gateway.commands import bodies, preview, verbs
from gateway.events import feed
from gateway.guests import agent, console_log, tunnels, usage
from gateway.openapi.statuses import OF_A_QUESTION, OF_A_WEBSOCKET
from gateway.reads import reads
from gateway.reads.read import Read
from gateway.table.parameters import FEED, FRESH, PAGED, PAST
from projections.vms import VmView

VMS = "/v1/projects/{project}/vms"
PREVIEW = "/v1/projects/{project}/vm-preview"
CONSOLE = f"{VMS}/{{vm}}/console"
VNC = f"{VMS}/{{vm}}/vnc"
EVERYWHERE = "/v1/vms"
FILTERS = ("phase", "tag", "label", "name", "node")
CONSOLE_LOG = ("bytes", "cursor", "wait", *FRESH)
#: The WebSockets, by path, with their parameters. The last part of the path is the verb of the question to the node.
TUNNELS = {CONSOLE: ("force", *FRESH), VNC: FRESH}

READS = (
    Read(f"{VMS}/{{vm}}", VM_READ, reads.vm, "A VM, now or at an earlier time", PAST, VmView),
    Read(VMS, VM_READ, reads.vm_list, "VMs", (*FILTERS, *PAGED), VmView, listed=True),
    Read(EVERYWHERE, VM_READ, reads.all_vms, "The VMs of all projects", (*FILTERS, *PAGED), VmView, listed=True),
    Read(
        f"{VMS}/{{vm}}/verbs",
        VM_READ,
        verbs.verbs,
        "What the caller can do to a VM now, and why not the rest",
        FRESH,
        verbs.VerbsView,
        statuses=(410,),
    ),
    Read(f"{VMS}/{{vm}}/feed", EVENT_READ, feed.of_vm, "The feed of a VM", FEED),
    Read(
        f"{VMS}/{{vm}}/console-log",
        VM_CONSOLE,
        console_log.console_log,
        "What a VM wrote to its console",
        CONSOLE_LOG,
        str,
        statuses=OF_A_QUESTION,
    ),
    Read(
        f"{VMS}/{{vm}}/guest",
        VM_READ,
        agent.guest,
        "What a guest says of itself now, by its agent",
        FRESH,
        Guest,
        statuses=OF_A_QUESTION,
    ),
    Read(
        PREVIEW,
        VM_CREATE,
        preview.preview,
        "What a create would do now; nothing is stored",
        (),
        preview.PreviewView,
        method="POST",
        body=bodies.CreateVm,
        statuses=(409, 410, 502),
    ),
    Read(
        f"{VMS}/{{vm}}/usage",
        VM_READ,
        usage.of_vm,
        "What a VM used lately",
        (*usage.PARAMETERS, *FRESH),
        usage.UsageSeriesView,
        statuses=OF_A_QUESTION,
    ),
    Read(
        CONSOLE,
        VM_CONSOLE,
        tunnels.upgrade_required,
        "A WebSocket to a VM's serial console",
        TUNNELS[CONSOLE],
        statuses=OF_A_WEBSOCKET,
    ),
    Read(
        VNC,
        VM_CONSOLE,
        tunnels.upgrade_required,
        "A WebSocket to a VM's display, in VNC's protocol (RFB)",
        TUNNELS[VNC],
        statuses=OF_A_WEBSOCKET,
    ),
)
