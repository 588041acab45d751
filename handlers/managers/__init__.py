"""The process managers: loops that watch the world and append or write what is missing from it.

One file each: `placement.py`, `dispatch.py`, `images.py`, `liveness.py`, `deadlines.py`, `deletions.py`, `notary.py`.
`driver.py` runs them.
"""
