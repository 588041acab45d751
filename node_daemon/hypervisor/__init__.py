"""What the daemon asks of a hypervisor (`hypervisor.py`, a protocol of few methods), and libvirt behind it.

The simulator (`node_daemon/simulation/`) passes the same contract suite.
"""
