"""The facts and the rules of a Nebula cloud.

Here live the messages (commands, events), the state they fold into, and the pure functions that judge: `decide`,
`evolve`, `place`. No I/O, no clock, no randomness, no import from any other room: time and ids arrive in the command.

Start with `vm/` (the life of a VM on one screen) and `vm/verbs/` (which verb when), then `contract/` (what crosses the
bus). `guest.py` is what guests say of themselves, and is no event.
"""
