"""The log over HTTP: followed as it grows (`feed.py`), and searched (`audit.py`)."""
