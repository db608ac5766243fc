"""A number out of names: the same on every machine, in every process and in every Python (``hash()`` is none of these).

Used where chance must not depend on order: which side of a split a sentence falls on, which speed a clip gets in an
epoch, how an epoch is shuffled.
"""

import hashlib


def stable_hash(*parts: str | int) -> int:
    """An evenly spread integer in [0, 2^63) that depends on every part and on their order."""
    digest = hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
