"""Disk images: fetched, judged before anything opens them, and measured."""
