"""The process managers: loops that watch the world, and append the events or write the documents that are missing.

One file each: `placement.py`, `dispatch.py`, `images.py`, `liveness.py`, `deadlines.py`, `deletions.py`, `notary.py`.
`wanted.py` makes the documents that `dispatch.py` writes; `wanted_documents.py` has those that are stored. `driver.py`
runs the managers.
"""
