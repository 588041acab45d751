"""The write side: whatever happens to the log happens here.

`commands.py` is the one command loop and `routes.py` its table. The process managers beside it watch the world that the
log tells (`world.py`) and act on it (`managers/`); `reports.py` turns what nodes say into events, and `queues.py`
brings it each of them until it is done.

Managers are level-triggered: a pure function of the world says what is missing, a thin loop appends it, and optimistic
concurrency makes two instances as good as one. After a crash the world is read again and what is missing is done.

No HTTP, no SQL, no libvirt. Start with `commands.py`.
"""
