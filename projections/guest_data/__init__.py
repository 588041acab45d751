"""The role `guest-data`: serves guests their data at boot, and forwards the message that a guest is ready.

It asks the projections over the bus, with the secret of the guest's URL. It has no database, no key and no privileges
on its host, so an attack on it harms nothing else. One process runs on each node. It keeps each answer as a sealed
copy, for a guest that boots while the projections do not answer.

Start with `source.py`, the HTTP side. `domain/contract/guest_data.py` has the messages on the bus;
`projections/guest_answers.py` is the other side. Nothing here imports Postgres or the vault.
"""
