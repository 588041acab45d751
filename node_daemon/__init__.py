"""The daemon of one host: wanted → plan → libvirt → report.

Here lives all that touches a hypervisor, an image or a disk. What does not live here: the decision what a VM should
be (handlers) and anything that reads or writes the event log. It imports `domain` (the node contract) and `runtime`.

Start with `reconcile/plan.py` (the rules), then `reconcile/lane.py` (one VM's loop around them) and
`reconcile/daemon.py` (all lanes together). `hypervisor/hypervisor.py` says what we need of libvirt,
`hypervisor/libvirt_adapter.py` how it is done. `simulation/` works without libvirt. `asks/answers.py` answers questions
to the node.
"""
