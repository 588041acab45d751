"""The log over HTTP: feeds (`feed.py`) and search (`audit.py`)."""
