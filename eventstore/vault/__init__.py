"""Keys that stand beside the log, each sealed by a master key; and the files that hold keys.

Start with `vault.py`.
"""
