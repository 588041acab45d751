"""Durable work queues: a message is delivered to one function until it is processed or parked. See `queues.py`."""
