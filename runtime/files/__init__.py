"""Files that are written whole, locked, and kept to their owner."""
