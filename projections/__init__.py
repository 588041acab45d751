"""The read side: what the log tells, kept in Postgres as rows that answer questions quickly.

One file per read model: its table, how events change it, its queries. `runner.py` follows the log and commits rows and
checkpoint together; `cloud_init.py` serves guests their configuration. Everything here can be thrown away and replayed.
`upgrade.py` replaces read models by those of a new version, `compare.py` proves them.
No commands are decided here, and nothing is appended to the log. Start with `runner.py`, then `vms.py`.
"""
