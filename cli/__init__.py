"""The `nebula` command: an HTTP client, and `nebula up`, the platform on one machine.

What is here: the commands, how they wait, and how they print for people and programs. What is not: rules of the
platform. The CLI knows only the HTTP API (docs/http-api.md). `local/`, `demo/` and the role commands in `main.py` know
more, and import it only when they are called, so that `nebula vm list` starts fast.
Start with `main.py`; `client/command.py` says how a command is made.
"""
