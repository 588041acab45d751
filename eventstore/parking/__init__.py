"""Messages that could not be processed, kept for people to look at.

Start with `parking.py`.
"""
