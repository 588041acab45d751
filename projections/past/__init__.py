"""The past: rows that show each resource as it was after each of its events, so that reads can travel in time.

A second set of read models in a schema of its own, `nebula_past`, with its own checkpoint. Rows are only added, one for
each event that changed an aggregate: such a row holds from its position up to the next row of the same aggregate.

heads.py        the newest state of each aggregate, from which the next event is folded; what existed at a position
versions.py     the API's JSON of each aggregate after each event, and the columns that lists filter by
operations.py   the same for operations, with their steps
moments.py      the time of each position
counts.py       how many events there are in each block of positions
models.py       the read models of this schema, as one value: `PAST`
turns.py        when the past may work: while the read models of the present have nothing to do
build.py        a long catch-up, in a process of its own
keeper.py       keeps the past in the role projections
queries.py      what the gateway asks; start here to read, and with versions.py to change what is stored
changes.py      what changed in a range of the log

Nothing here parks messages or appends to the log, and a failure here never stops the read models of the present.
"""
