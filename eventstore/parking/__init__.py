"""Parked messages: messages that could not be processed, stored for people to look at.

Start with `parking.py`.
"""
