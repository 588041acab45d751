"""Commands: which calls there are, what their bodies say, and how handlers are asked.

Start with `actions.py` (the table), then `commands.py` (the way of each).
"""
