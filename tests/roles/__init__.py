"""What all roles have in common: how they start, wait and end."""
