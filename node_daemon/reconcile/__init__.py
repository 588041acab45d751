"""The reconciler of a node: it compares the wanted documents with the hypervisor, acts, and reports.

Start with `plan.py` (the rules, pure), then `lane.py` and `executor.py`.
"""
