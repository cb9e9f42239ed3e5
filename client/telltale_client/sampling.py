"""Which predictions a sample keeps: the same in every pod, in Telltale's store, and for labels."""

from __future__ import annotations

from zlib import crc32


def kept(prediction_id: str, fraction: float) -> bool:
    """Whether a sample of this size keeps a prediction. It depends on nothing but the id.

    >>> kept("a", 1.0), kept("a", 0.98), kept("a", 0.97)
    (True, True, False)
    """
    if fraction >= 1:
        return True
    return crc32(prediction_id.encode("utf-8", "surrogatepass")) * 2654435761 % 2**32 < int(fraction * 2**32)
