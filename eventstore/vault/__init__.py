"""Keys that are stored outside the log, each wrapped by a master key; and the files of keys.

Start with `vault.py`.
"""
