"""Sentences for people about what the log says, so that all clients use the same ones.

`sentences.py` has the words of each type of event; `events.py` says of an event what it is about and what caused it;
`fields.py` says what changed about a resource, with the words of single fields in `of_fields.py`. No rules, and no
queries.
"""
