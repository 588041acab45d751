"""What earlier versions left behind, read by this one: their logs, and their documents for nodes."""
