"""Nodes without a hypervisor: many in one process, for tests, for load and to try Nebula.

Start with `fleet.py` (the process), then `simulator.py` (the hypervisor).
"""
