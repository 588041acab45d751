"""The membership of a daemon: the lease of its node, and its heartbeats."""
