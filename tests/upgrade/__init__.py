"""What earlier versions left behind, read by this one: their logs and documents; and the version before, beside it."""
