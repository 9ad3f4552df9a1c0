"""Brings letters from run to run, and tells children that their parent has closed. The file knows what is under way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import apsw

from node.workflow.core.definition import Workflow
from node.workflow.core.letters import Letter, LetterKey, refusal
from node.workflow.errors import InputConflict, NotOpen, NotRecorded, RunClosed
from node.workflow.serve.loaded import Item, new_child
from node.workflow.serve.runs import Runs
from node.workflow.values.events import Draft, Kind
from node.workflow.values.run import CLOSED

log = logging.getLogger(__name__)

AGAIN_S: Final = 1.0  # after a commit that failed: a full disk, say


class Post:
    """The letters of one log. A letter stays in the file until its target has recorded it or never will."""

    def __init__(self, runs: Runs, definitions: Mapping[str, Workflow]) -> None:
        self._runs = runs
        self._definitions = definitions
        self._parents: set[str] = set()  # runs that may have children which are open
        self._arriving: dict[str, asyncio.Future[int]] = {}

    def open(self) -> None:
        """Go on with what was under way when the last process ended."""
        for parent, is_closed in self._runs.store.parents():
            self._parents.add(parent)
            if is_closed:
                self.closed(parent)
        for letter in self._runs.store.letters():
            self.deliver(letter)

    def arriving(self, run_id: str) -> asyncio.Future[int] | None:
        """The start of a child of this id that is on its way into the file."""
        return self._arriving.get(run_id)

    def deliver(self, letter: Letter) -> None:
        """Bring a letter that is in the file to its target."""
        if not self._runs.accepting:
            return  # the next process does
        if letter.kind == Kind.STARTED:
            self._start(letter)
        elif self._is_open(letter.target):
            self._send(letter.target, letter.draft(), letter, letter.key)
        elif self._runs.store.is_coming(letter.target):
            asyncio.get_running_loop().call_later(AGAIN_S, self.deliver, letter)
        else:
            log.info("run %s: nobody gets its %s, run %s is not open", letter.sender, letter.kind, letter.target)
            self._remove(letter)

    def closed(self, parent: str) -> None:
        """A run has ended: do with its children as their policies say."""
        if parent not in self._parents or not self._runs.accepting:
            return
        for child, policy in self._runs.store.open_children(parent):
            if policy == "terminate":
                error = {"type": "ParentClosed", "message": f"its parent, run {parent!r}, has ended"}
                self._send(child, Draft(Kind.TERMINATED, {"error": error}), parent)
            elif policy == "cancel":
                self._send(child, Draft(Kind.CANCEL_REQUESTED, {"sender": parent}), parent)
        self._parents.discard(parent)

    def continued(self, run_id: str, archived: str) -> None:
        """A run goes on as new, and what it was has another id now: to its children it has closed."""
        if run_id in self._parents:
            self._parents.add(archived)
            self.closed(archived)

    def _start(self, letter: Letter) -> None:
        if letter.dies_with_sender and not self._is_open(letter.sender):
            self._remove(letter)  # its parent has ended before it began
            return
        if self._runs.in_memory(letter.target) or self._runs.store.row(letter.target) is not None:
            taken = refusal(letter, InputConflict(letter.target, "another parent or step"))
            self._send(letter.sender, taken.draft(), letter, letter.key)
            return
        self._parents.add(letter.sender)
        definition = self._definitions.get(letter.facts["name"])
        loaded = new_child(letter, definition, tuple(self._definitions), self._runs.now_ms())
        self._runs.add(loaded)
        self._arriving[letter.target] = self._send(letter.target, letter.draft(), letter, letter.key)
        self._arriving[letter.target].add_done_callback(lambda _: self._arriving.pop(letter.target, None))

    def _is_open(self, run_id: str) -> bool:
        if self._runs.in_memory(run_id):
            return True
        row = self._runs.store.row(run_id)
        return row is not None and row.state not in CLOSED

    def _send(
        self, target: str, draft: Draft, why: Letter | str, letter: LetterKey | None = None
    ) -> asyncio.Future[int]:
        recorded: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        recorded.add_done_callback(partial(self._answered, why))
        self._runs.send(self._runs.load(target), Item(draft, recorded, letter=letter))
        return recorded

    def _answered(self, why: Letter | str, recorded: asyncio.Future[int]) -> None:
        error = None if recorded.cancelled() else recorded.exception()
        if isinstance(error, NotRecorded):
            again: Any = partial(self.deliver, why) if isinstance(why, Letter) else partial(self._closed_again, why)
            asyncio.get_running_loop().call_later(AGAIN_S, again)
        elif isinstance(error, RunClosed) and isinstance(why, Letter):
            self._remove(why)
        elif error is None and isinstance(why, Letter) and why.dies_with_sender and not self._is_open(why.sender):
            self._closed_again(why.sender)  # its end was written while this was on its way
        elif error is not None and not isinstance(error, NotOpen | RunClosed):
            log.error("%s could not be delivered: %s", why, error)

    def _closed_again(self, parent: str) -> None:
        self._parents.add(parent)
        self.closed(parent)

    def _remove(self, letter: Letter) -> None:
        """Nobody will ever record it. Lost with a crash, this is done again when the file is opened."""

        def do(db: apsw.Connection) -> None:
            db.execute("DELETE FROM letters WHERE sender = ? AND step = ? AND target = ?", letter.key)

        self._runs.write_later(do)
