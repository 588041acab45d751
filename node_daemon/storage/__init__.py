"""Base images, the disks of VMs, and the room that they take.

Start with `storage.py` (what the executor asks).
"""
