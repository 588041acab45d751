"""Base images, the disks of VMs, and the disk space that they use.

Start with `storage.py`, the interface for the executor.
"""
