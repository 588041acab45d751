"""An HTTP client with good manners, and what the commands that use it share.

Start with `client.py` and `command.py`.
"""
