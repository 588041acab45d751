"""Cheap starts of processes: forks of one that has imported everything, since imports are most of what a start costs.

Nothing else changes: a fork is a child of whoever started it, with the arguments, environment, files, umask, session
and signals that a new `python -m MODULE` would have (`tests/test_preload.py` compares both). `client` decides which
starts are forks, `server` is the process that forks, `linux` has the system calls.

A fork shows nothing about importing, nor about starting as another user or with another environment for Python: such
starts are never forks. A test that needs a new interpreter uses the fixture `new_interpreters`.
"""
