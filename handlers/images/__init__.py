"""Images: fetched and judged, kept for nodes, and their credentials.

The manager that imports them is `handlers/managers/images.py`. Start with `store.py`.
"""
