"""The `nebula` command: an HTTP client with good manners, and `nebula up`, the platform on one machine.

Here live commands, how they wait, and how they speak to people and programs. Rules of the platform do not: the CLI
knows the HTTP contract (docs/http-api.md) and nothing of what is behind it. Only `up.py`, the role commands in
`main.py` and `demo.py` know more, and they import it when called: `nebula vm list` has to start at once.
Start with `main.py`; `command.py` says how a command is made.
"""
