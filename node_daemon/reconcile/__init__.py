"""What is wanted against what there is: the wanted documents, the plan, a lane for each VM, and the reports.

Start with `plan.py` (the rules, pure), then `lane.py` and `executor.py`.
"""
