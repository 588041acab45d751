"""`nebula demo`: the whole life of one real VM. Start with `demo.py`."""
