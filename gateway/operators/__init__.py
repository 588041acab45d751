"""For operators: whether the platform works, how each process is, and parked messages."""
