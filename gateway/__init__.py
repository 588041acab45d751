"""The HTTP API: parse the request, ask handlers or read rows, answer.

Commands are sent to handlers over the bus and answered from their reply. Reads come from the projections' rows. Feeds
and time travel come from the log itself. There are no rules and no SQL here, and nothing is appended to the log.

Start with `table/` and `commands/actions.py` (all calls), then `routes.py` and `commands/`. Every call passes through
`edge.py`. `state.py` has the state of a running gateway. `http/` and `monitoring/` do not depend on the calls.
"""
