"""The command loop, and what it needs to know before it decides.

Start with `loop.py`, then `routes.py` (which command each subject stands for) and `lookups.py`.
"""
