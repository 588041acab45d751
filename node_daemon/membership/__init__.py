"""Being the one daemon of a node: its lease, and its heartbeats."""
