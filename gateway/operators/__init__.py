"""Calls for operators: health, the state of each process, and parked messages."""
