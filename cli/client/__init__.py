"""The HTTP client, and what the commands that use it share.

Start with `client.py` and `command.py`.
"""
