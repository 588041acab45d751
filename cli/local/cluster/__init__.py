"""A cluster of three hosts on this machine: `make cluster`, and what tests and chaos runs start.

Each host is a network namespace with an address of its own, on a bridge in one more namespace, so nothing is added to
this machine's network but one link to them. Without root, or for a quick test, hosts are addresses of 127.0.0.0/8.

Start with `cluster.py`. docs/cluster.md says how to set up the same on three real hosts.
"""
