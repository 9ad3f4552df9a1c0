from __future__ import annotations

from node.agent.runtime.logs import LONGEST_LINE_BYTES, lines


def test_lines_are_whole_wherever_the_pieces_end() -> None:
    assert list(lines([b"on", b"e\ntwo\nth", b"", b"ree"])) == [b"one", b"two", b"three"]


def test_a_line_without_an_end_does_not_grow_without_bound() -> None:
    found = list(lines(b"x" * 100_000 for _ in range(30)))
    assert sum(map(len, found)) == 3_000_000
    assert max(map(len, found)) <= LONGEST_LINE_BYTES + 100_000
