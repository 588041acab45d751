"""Authentication: tokens from a file, and tickets for feeds."""
