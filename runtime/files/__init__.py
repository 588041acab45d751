"""Files: written atomically, locked, and private to their owner."""
