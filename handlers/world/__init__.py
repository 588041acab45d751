"""All aggregates in memory, folded from the log in its order.

Start with `world.py`.
"""
