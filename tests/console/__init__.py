"""The console: its files, its modules, and its pages in a browser."""
