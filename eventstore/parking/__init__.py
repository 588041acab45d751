"""Messages that could not be taken in, put aside for people.

Start with `parking.py`.
"""
