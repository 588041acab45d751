"""Simulated nodes without a hypervisor: many in one process, for tests, for load, and for trying Nebula.

Start with `fleet.py` (the process), then `simulator.py` (the hypervisor).
"""
