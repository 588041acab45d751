"""The interface to a hypervisor (`hypervisor.py`, a protocol of few methods), and its implementation with libvirt.

The simulator (`node_daemon/simulation/`) passes the same contract suite.
"""
