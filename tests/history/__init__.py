"""What was once written to the log, byte by byte. It must load for ever; see test_history.py."""
