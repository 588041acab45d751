"""The requests that a node answers: consoles, displays, what the agent in a guest reports, and what guests use."""
