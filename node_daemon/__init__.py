"""The daemon of one host: wanted → plan → libvirt → report.

Here lives all that touches a hypervisor, an image or a disk. What does not live here: the decision what a VM should
be (handlers) and anything that reads or writes the event log. It imports `domain` (the node contract) and `runtime`.

Start with `plan.py` (the rules), then `lane.py` (one VM's loop around them) and `daemon.py` (all lanes together).
`hypervisor.py` is what we ask of libvirt, `libvirt_adapter.py` how; `simulator.py` answers without one, for the domains
of a `simulated_host.py`, and `fleet.py` runs many daemons on it. `answers.py` is what a node answers at once.
"""
