"""The bus: the connection, requests and their answers, streams read in order.

Start with `bus.py`, then `requests.py` and `responder.py`; `ordered.py` follows a stream.
"""
