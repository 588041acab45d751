"""The log on JetStream: append, load, read, follow; and the vault, which stores keys outside the log.

This room does not know the meaning of an event (`domain` does). No other room knows how the log is stored.
Start with `log/envelope.py` (what a message looks like), then `log/store.py`. `library/recorder.py` is the same log for
applications of the `eventsourcing` library. `integrity/` proves that the log is complete and unchanged. `parking/`
keeps messages that could not be processed.
"""
