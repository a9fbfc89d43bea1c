"""A 64-bit fingerprint of a map: wyhash (version 4.2, default secret) over its cells as text.

wyhash is Wang Yi's public-domain hash function, https://github.com/wangyi-fudan/wyhash.
"""

from __future__ import annotations

from collections.abc import Sequence

_MASK = (1 << 64) - 1
_SECRET = (0x2D358DCCAA6C78A5, 0x8BB84B93962EACC9, 0x4B33A62ED433D4A3, 0x4D5A2DA51DE1AA47)


def _mix(a: int, b: int) -> int:
    product = a * b
    return (product & _MASK) ^ (product >> 64)


def wyhash(data: bytes) -> int:
    """The hash of `data` with seed 0."""

    def read(at: int, size: int = 8) -> int:
        return int.from_bytes(data[at : at + size], "little")

    s0, s1, s2, s3 = _SECRET
    length = len(data)
    seed = _mix(s0, s1)
    if length <= 16:
        if length >= 4:
            middle = (length >> 3) << 2
            a = read(0, 4) << 32 | read(middle, 4)
            b = read(length - 4, 4) << 32 | read(length - 4 - middle, 4)
        elif length > 0:
            a = data[0] << 16 | data[length >> 1] << 8 | data[length - 1]
            b = 0
        else:
            a = b = 0
    else:
        at = 0
        if length >= 48:
            lane_1 = lane_2 = seed
            while length - at >= 48:
                seed = _mix(read(at) ^ s1, read(at + 8) ^ seed)
                lane_1 = _mix(read(at + 16) ^ s2, read(at + 24) ^ lane_1)
                lane_2 = _mix(read(at + 32) ^ s3, read(at + 40) ^ lane_2)
                at += 48
            seed ^= lane_1 ^ lane_2
        while length - at > 16:
            seed = _mix(read(at) ^ s1, read(at + 8) ^ seed)
            at += 16
        a = read(length - 16)
        b = read(length - 8)
    product = (a ^ s1) * (b ^ seed)
    return _mix((product & _MASK) ^ s0 ^ length, (product >> 64) ^ s1)


def grid_hash(rows: Sequence[Sequence[str]]) -> int:
    """The fingerprint of a map of cell names."""
    cells = (f"{r},{c}:{name};" for r, row in enumerate(rows) for c, name in enumerate(row))
    return wyhash("".join(cells).encode())
