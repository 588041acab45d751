"""The bus: the connection to NATS, requests and answers, and streams that are read in order.

Start with `bus.py` and `quick_client.py`, then `requests.py` and `responder.py`; `ordered.py` follows a stream.
"""
