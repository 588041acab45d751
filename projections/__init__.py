"""The read side: what the log tells, kept in Postgres as rows that answer questions quickly.

One file per read model: its tables, how events change them, its queries and its version, as one value of `model.py`.
`books.py` lists them. `runner.py` follows the log and commits rows and checkpoint together; `upgrade.py` replaces read
models by those of a new version, `compare.py` proves them. `guest_answers.py` says what each guest is told, and
`guest_data/` serves it to guests as a role of its own. Everything here can be thrown away and replayed.
No commands are decided here, and nothing is appended to the log. Start with `runner.py`, then `model.py` and `vms.py`.
"""
