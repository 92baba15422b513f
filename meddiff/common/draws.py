"""Random draws with an address: the same (seed, purpose, epoch, key) gives the same numbers anywhere.

Source: own (design decision 5). Philox is counter based, so a generator costs microseconds to make and
two addresses never share a stream.
"""

import hashlib

import numpy as np


def generator(*address: object) -> np.random.Generator:
    """A numpy generator that depends on ``address`` alone (str() of each part, order matters).

    Example:
        >>> generator(0, "noise", 3, "p10_s1").integers(100) == generator(0, "noise", 3, "p10_s1").integers(100)
        np.True_
    """
    text = "\x1f".join(str(part) for part in address)
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


def torch_seed(*address: object) -> int:
    """A 63-bit seed for ``torch.Generator.manual_seed`` that depends on ``address`` alone."""
    text = "\x1f".join(str(part) for part in address)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
