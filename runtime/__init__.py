"""What every process shares: settings, the bus connection, subjects, logging, the local servers of `nebula up`.

Imports nothing of ours, and importing it has no effect. Start with `subjects.py`: the names of everything on the bus.
"""
