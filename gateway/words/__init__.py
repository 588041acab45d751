"""Sentences for people about what the log says, so that all clients use the same ones.

`events.py` says what an event is about and what caused it. No rules, and no queries.
"""
