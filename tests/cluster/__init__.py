"""Tests of a cluster of three servers: `make chaos-cluster`, and short runs of it.

`bed.py` starts one, `writers.py` gives commands to it and notes the answers, `checks.py` compares them with the log.
`faults.py` has one class of faults each, `run.py` puts it together. docs/cluster.md says how to read the figures.
"""
