"""The requests that a node answers: consoles, displays, and the facts that the agent in a guest reports."""
