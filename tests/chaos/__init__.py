"""The log under a server that is killed, again and again: `make chaos-log`, or `python -m tests.chaos`.

`ledger.py` is what the writers were told, `check.py` compares it with the log that is left: start there. `writers.py`
appends, `feeds.py` follows meanwhile, `run.py` kills. A short run is one of the tests
(`tests/eventstore/test_chaos.py`); docs/integrity.md says how to read the figures.
"""
