"""The log on JetStream: append, load, read, follow; and the vault of keys beside it.

Nothing here knows what an event means: that is `domain`. Nothing outside knows how the log is kept.
Start with `log/envelope.py` (what a message looks like), then `log/store.py`. `library/recorder.py` is the same log for
applications of the `eventsourcing` library. `integrity/` proves that the log is complete and unchanged. `parking/`
keeps messages that could not be processed.
"""
