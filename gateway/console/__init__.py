"""The console: a page in the browser. Here are its files (`web/`) and how they are served; nothing else.

The page uses the public HTTP API only, with the rights of whoever signs in. So this package needs neither the state of
the gateway nor its reads, and may not import them (a contract in `pyproject.toml`).

Start with `routes.py`, then `web/app.js`. docs/extending.md says how a page is added.
"""
