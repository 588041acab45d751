"""The table of the calls that are not commands, a file for each noun. A row has the path, the permission, the function,
the parameters and the answer of a call. Start with `reads.py`, which has all of them.

There are no functions of calls here. The commands are `ACTIONS` in `gateway/commands/actions.py`.
"""
