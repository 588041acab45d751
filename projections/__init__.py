"""The read side: rows in Postgres, made from the log, that answer reads fast.

One file per read model: its tables, how events change them, its queries and its version, as one value of `model.py`.
`books.py` lists them. `runner.py` follows the log and commits rows and checkpoint together; `upgrade.py` replaces read
models by those of a new version, `compare.py` compares two copies. `guest_answers.py` computes what each guest gets;
`guest_data/` is the role that serves it to guests. All rows can be deleted and made again by a replay.
No commands are decided here, and nothing is appended to the log. Start with `runner.py`, then `model.py` and `vms.py`.
"""
