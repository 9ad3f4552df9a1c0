"""The events of one append, as they come to be."""

from __future__ import annotations

from node.workflow.core.letters import Letter, LetterKey
from node.workflow.values.events import Draft


class Page:
    """What one run adds to its log in one go. `paused` is None while that stays as it is."""

    def __init__(self, run_id: str, seq: int) -> None:
        self.run_id = run_id
        self.seq = seq
        self.log: list[tuple[str, int, int, str, str]] = []
        self.payloads: list[tuple[str, str]] = []
        self.signals: list[tuple[str, str, int]] = []
        self.letters: list[Letter] = []
        self.letters_gone: list[LetterKey] = []
        self.paused: bool | None = None

    def put(self, draft: Draft, at_ms: int) -> str | None:
        """Add an event. Returns the text of its body when the payload is in it."""
        self.seq += 1
        body, payload = draft.row()
        self.log.append((self.run_id, self.seq, at_ms, str(draft.kind), body))
        if payload is None:
            return body
        self.payloads.append(payload)
        return None

    def send(self, letter: Letter | None) -> None:
        """Add something for another run."""
        if letter is not None:
            self.letters.append(letter)
