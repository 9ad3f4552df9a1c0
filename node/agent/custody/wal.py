"""Whether a database's log on disk still holds what Litestream copied out of it: after a power cut it may not. Pure but
for the files that are handed in.

A raw transaction says where in the log its frames were; the log's checksums say how much of it is whole. If the log is
of the same generation and whole up to there, then so is the database: SQLite writes nothing back that is not synced.
"""

from __future__ import annotations

import struct
import sys
from array import array
from dataclasses import dataclass
from typing import BinaryIO

LTX_BYTES = 100
_WAL_BYTES, _FRAME_BYTES = 32, 24
_MAGIC = 0x377F0682  # its last bit: the checksums are of big-endian words
_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Reached:
    """Up to where of which generation of the log a raw transaction reaches."""

    end: int
    salt: bytes


def reached(ltx_header: bytes) -> Reached | None:
    """What the first 100 bytes of a raw transaction say; None if they are no such header."""
    if len(ltx_header) < LTX_BYTES or ltx_header[:4] != b"LTX1":
        return None
    offset, size = struct.unpack_from(">qq", ltx_header, 48)
    return Reached(offset + size, ltx_header[64:72])


def whole_until(log: BinaryIO, wanted: Reached) -> bool:
    """Whether the log is of that generation, and every frame up to there is whole. Reads no further."""
    header = log.read(_WAL_BYTES)
    if len(header) < _WAL_BYTES or header[16:24] != wanted.salt or wanted.end < _WAL_BYTES:
        return False
    magic, _, page_bytes = struct.unpack_from(">III", header)
    if magic & ~1 != _MAGIC or not 512 <= page_bytes <= 65536:
        return False
    big = bool(magic & 1)
    sums = _sum(header[:24], (0, 0), big=big)
    if sums != struct.unpack_from(">II", header, 24):
        return False
    at = _WAL_BYTES
    while at < wanted.end:
        frame = log.read(_FRAME_BYTES + page_bytes)
        if len(frame) < _FRAME_BYTES + page_bytes or frame[8:16] != wanted.salt:
            return False
        sums = _sum(frame[_FRAME_BYTES:], _sum(frame[:8], sums, big=big), big=big)
        if sums != struct.unpack_from(">II", frame, 16):
            return False
        at += len(frame)
    return at == wanted.end


def _sum(data: bytes, before: tuple[int, int], *, big: bool) -> tuple[int, int]:
    words = array("I", data)
    if big != (sys.byteorder == "big"):
        words.byteswap()
    a, b = before
    for i in range(0, len(words), 2):
        a = (a + words[i] + b) & _MASK
        b = (b + words[i + 1] + a) & _MASK
    return a, b
