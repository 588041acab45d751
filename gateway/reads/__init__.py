"""Reads of the projections' rows: one resource, a page of resources, and waiting for the end of an operation.

Start with `reads.py`. `read.py` is a row of the table in `gateway/table/`.
"""
