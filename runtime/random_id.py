"""Random ids."""

import os


def random_uuid() -> str:
    """A UUID of version 4 in its canonical form. Like `str(uuid.uuid4())`, at half the cost."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
