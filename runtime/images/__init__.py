"""Disk images: downloads, checks before anything opens an image, and sizes."""
