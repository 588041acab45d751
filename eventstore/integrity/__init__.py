"""Proofs: signed checkpoints, verification of the log, export to archives and restore from them.

Start with `verify.py` (pure: events in, findings out), then `notary.py`.
"""
