"""`make soak`: people at work on a cloud whose processes keep dying; in the end everything must say the same.

`people.py` gives random lifecycle commands over HTTP, `weather.py` kills, `compare.py` holds the log, the read models,
the wanted documents, the nodes' books and the hypervisors against each other. `run.py` puts them together.
"""
