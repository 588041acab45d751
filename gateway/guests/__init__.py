"""Questions to the node of a VM about its guest: the agent, the console's log, and connections to consoles.

Start with `asks.py`.
"""
