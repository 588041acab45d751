"""What the node of a VM is asked about its guest: the agent, the console's log, and connections to consoles.

Start with `asks.py`.
"""
