"""Lines out of the engine's log stream, whose pieces end anywhere. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

LONGEST_LINE_BYTES = 1 << 20


def lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Whole lines without their line feeds; a line without an end is given out in parts of bounded length."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
        if len(rest) > LONGEST_LINE_BYTES:
            yield rest
            rest = b""
    if rest:
        yield rest
