"""The log on JetStream: what stands in it, and how it is appended to, loaded, judged and followed.

Start with `envelope.py` (what stands in the log), then `store.py` (append, load, read) and `follow.py`.
"""
