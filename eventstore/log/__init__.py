"""The log on JetStream: the form of its messages, and how it is appended to, loaded, checked and followed.

Start with `envelope.py` (the form of a message), then `store.py` (append, load, read) and `follow.py`.
"""
