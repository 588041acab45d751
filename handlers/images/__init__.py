"""Images: how they are fetched, verified, stored for nodes, and the credentials in their URLs.

The manager that imports them is `handlers/managers/images.py`. Start with `store.py`.
"""
