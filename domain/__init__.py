"""The facts and the rules of a Nebula cloud.

This room has the messages (commands, events), the states that events fold into, and the pure functions `decide`,
`evolve` and `place`. It has no I/O, no clock and no randomness, and imports no other room: time and ids come with the
command.

Start with `vm/` (the life of a VM on one screen) and `vm/verbs/` (when each verb is accepted), then `contract/` (the
messages on the bus). `guest.py` is what a guest reports of itself; it is never stored as an event.
"""
