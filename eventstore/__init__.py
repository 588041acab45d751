"""The log on JetStream: append, load, read, follow; and the vault of keys beside it.

Nothing here knows what an event means: that is `domain`. Nothing outside knows how the log is kept.
Start with `envelope.py` (what a message looks like), then `store.py`. `recorder.py` is the same for any `eventsourcing`
application.
That the log is whole is proven by `verify.py` and `checkpoints.py`; `archive.py` is the log in a file.
"""
