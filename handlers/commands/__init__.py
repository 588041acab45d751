"""The command loop, and the lookups that it makes before it decides.

Start with `loop.py`, then `routes.py` (the command of each subject) and `lookups.py`.
"""
