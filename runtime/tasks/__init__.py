"""Tasks of asyncio that end for certain, and waiting: back-off, patience."""
