"""The accounts of the bus: who may publish, request and hear what.

Start with `table.py`, from which everything else is derived. `authority.py` keeps the keys of a home, and makes
credentials. docs/bus-access.md is generated from the table.
"""
