"""Commands: the table of calls, their bodies, and how they are sent to handlers.

Start with `actions.py` (the table), then `commands.py` (the steps of each command).
"""
