"""The daemon of one host: wanted → plan → libvirt → report.

This room contains everything that touches a hypervisor, an image or a disk. It does not decide what a VM should be
(handlers do), and it neither reads nor writes the event log. It imports `domain` (the node contract) and `runtime`.

Start with `reconcile/plan.py` (the rules), then `reconcile/lane.py` (the loop of one VM) and `reconcile/daemon.py` (all
lanes together). `hypervisor/hypervisor.py` is the interface to a hypervisor, `hypervisor/libvirt_adapter.py` implements
it with libvirt, `simulation/` without libvirt. `asks/answers.py` answers requests about the guests of the node.
"""
