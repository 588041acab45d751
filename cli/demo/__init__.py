"""`nebula demo`: the whole life of one VM on real parts. Start with `demo.py`."""
