"""The write side: the only room that appends events to the log.

`commands/` is the command loop and its table. The process managers (`managers/`) watch the world, which is folded from
the log (`world/`), and append what is missing. `nodes/` makes events of the reports of nodes, which `queues/` delivers
until each is processed. All of them append with `apply.py`.

Managers are level-triggered: a pure function computes from the world what is missing, and a small loop appends it.
Optimistic concurrency makes it harmless if two processes do the same. After a crash the world is read again, and what
is still missing is appended.

No HTTP, no SQL, no libvirt. Start with `commands/loop.py`.
"""
