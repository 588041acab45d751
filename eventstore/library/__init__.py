"""A persistence module for the `eventsourcing` library, with all code that only it needs.

`PERSISTENCE_MODULE=eventstore.library.recorder`. The platform's own path does not import this package.
"""
