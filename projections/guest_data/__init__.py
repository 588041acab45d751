"""The role `guest-data`: serves each guest what it is told at boot, and passes on that the guest is ready.

It knows nothing by itself: it asks the projections over the bus, with the secret of the guest's URL. It has no
database, no key and no rights on its host, so what a guest does to it harms nothing else. One runs on each node.
What it was answered it keeps as a sealed copy, for a guest that boots while nobody answers.

Start with `source.py`, the HTTP side. `domain/contract/guest_data.py` has the messages on the bus;
`projections/guest_answers.py` is the other side. Nothing here imports what needs Postgres or the vault.
"""
