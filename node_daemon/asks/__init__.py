"""What a node answers when it is asked: consoles, displays, and what the agent in a guest says."""
