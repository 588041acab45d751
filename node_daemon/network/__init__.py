"""The networks that guests are plugged into, and the addresses that they have."""
