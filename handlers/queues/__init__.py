"""Durable work queues: each message goes to one function, until it is done or parked. Start with `queues.py`."""
