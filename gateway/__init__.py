"""The HTTP API: parse, ask, answer.

Commands go to the handlers over the bus and are answered from their reply; reads come from the projections' rows; feeds
and time travel come from the log itself. No rules and no SQL live here, and nothing is appended to the log.

Start with `routes.py` (everything that can be called), then `commands/`. Every call passes through `edge.py`.
`state.py` is what a gateway holds while it runs. `http/` and `monitoring/` know nothing of the calls.
"""
