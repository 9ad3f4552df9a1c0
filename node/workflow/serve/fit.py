"""New code replays the open runs before they go on, so that those it does not fit are listed as blocked at once."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Iterable
from pathlib import Path

import apsw

from node.workflow.core.definition import Workflow
from node.workflow.serve.executive import Executive


def fingerprint(definitions: Iterable[Workflow]) -> str:
    """What changes with the workflows, and with the files that declare them: 64 hex digits."""
    found = sorted(definitions, key=lambda d: d.name)
    sources = sorted({inspect.getsourcefile(d.fn) or "" for d in found})
    parts = [Path(source).read_bytes() for source in sources if Path(source).is_file()]
    for definition in found:
        parts += [definition.name.encode(), definition.fn.__code__.co_code]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


class Fit:
    """Replays the open runs of a log once for each new version of the code, in the background, one after the other."""

    def __init__(self, executive: Executive, definitions: Iterable[Workflow]) -> None:
        self._executive = executive
        self._definitions = tuple(definitions)
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin, when the code is not the one that the file was last served with."""
        code = fingerprint(self._definitions)
        if self._executive.store.code() == code:
            return
        if runs := self._executive.store.open_runs():
            self._task = asyncio.get_running_loop().create_task(self._replay_all(runs, code), name="workflow-fit")
        else:
            self._done(code)

    async def close(self) -> None:
        """Stop; the next process begins anew."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def wait(self) -> None:
        """Return when every open run has been replayed."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def _replay_all(self, run_ids: list[str], code: str) -> None:
        await self._executive.loader.one_by_one(run_ids, self._executive.look_over)
        self._done(code)

    def _done(self, code: str) -> None:
        def do(db: apsw.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO code VALUES (1, ?)", (code,))

        self._executive.write_later(do)
