"""What hostile guests try on the network of a host. Start with `bed.py`; `docs/attackers.md` lists all attackers."""
