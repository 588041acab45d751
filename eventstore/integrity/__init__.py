"""Proofs: checkpoints that are signed, the log verified, archives of it exported and restored.

Start with `verify.py` (pure: events in, findings out), then `notary.py`.
"""
