"""The write side: whatever happens to the log happens here.

`commands/` is the one command loop and its table. The process managers beside it watch the world that the log tells
(`world/`) and act on it (`managers/`); `nodes/` turns what nodes say into events, and `queues/` brings it each report
until it is done. All of them append by way of `apply.py`.

Managers are level-triggered: a pure function of the world says what is missing, a thin loop appends it, and optimistic
concurrency makes two instances as good as one. After a crash the world is read again and what is missing is done.

No HTTP, no SQL, no libvirt. Start with `commands/loop.py`.
"""
