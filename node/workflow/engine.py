"""The engine: what a program that serves workflows holds. One for each log file."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Final, Self

from node.workflow.core.definition import Workflow
from node.workflow.core.queue import Queue
from node.workflow.core.sandbox import Checks
from node.workflow.core.schedule import Schedule
from node.workflow.errors import (
    InputConflict,
    InvalidDefinition,
    InvalidInput,
    NoSuchRun,
    NotOpen,
    NotStorable,
    RunClosed,
    Unconfirmed,
    UnknownWorkflow,
)
from node.workflow.log.codec import Codec
from node.workflow.log.fork import copy, cut, was_forked_alike
from node.workflow.log.lockfile import hold
from node.workflow.log.search import MAX_PAGE, Search
from node.workflow.log.sqlite import Synchronous
from node.workflow.log.store import without_end
from node.workflow.log.sweep import Keep
from node.workflow.serve.ask import ask_run
from node.workflow.serve.executive import Executive
from node.workflow.serve.fit import Fit
from node.workflow.serve.gate import Durable
from node.workflow.serve.loaded import Item
from node.workflow.serve.retention import Retention
from node.workflow.serve.schedules import Schedules
from node.workflow.serve.starts import Conflict, Starts
from node.workflow.values.events import Draft, Event, Kind
from node.workflow.values.payload import encode
from node.workflow.values.run import CLOSED, Page, Run, RunRow, Started, State, Stats
from node.workflow.values.runid import check_run_id, new_run_id

MAX_REASON: Final = 1_000


class Engine:
    """Serves the workflows of one log file. All methods are called on the event loop that `open` was called on.

    path            the SQLite file; made when it is not there. One process serves it at a time (a lock file beside it
                    says so).
    definitions     the workflows of this code. A run of another name is blocked until code that has it is started.
    durable         None: what is committed is durable. Else (rpo 0) an async function that returns once everything
                    committed before the call is durable, and raises when that is not known: an activity is then
                    dispatched, and a start, signal, cancellation or end told, only after such an answer. Asked again,
                    with backoff, for ever.
    effects_durable the same, asked only before the result of an activity that committed to an `open_database` file is
                    recorded, so that no result outlives what it stands for. Defaults to `durable`; give it alone where
                    rpo is above 0.
    synchronous     "full", or "normal" where `durable` is the fsync.
    checkpoint      True where nothing replicates the file: the writer then checkpoints. False with a sidecar.
    clock           unix time in seconds.
    confirm_timeout_s  how long a call waits for `durable` before it raises Unconfirmed.
    max_activities  run at a time; the others queue. `threads` of them may be sync functions.
    keep_idle       runs that only wait and stay in memory; the others are replayed when they go on.
    queues          made, or given these limits, when it is opened; those that the file has beside them stay.
    schedules       the same.
    retention       how long runs are kept that have ended; for ever without it.
    codec           encodes values on their way into the file, and back (`log.codec.Codec`): encryption, say.
    development     whether to warn when workflow code reads the clock, chance, the network or a file past `ctx`, with
                    the line; by default where Python runs in development mode (`-X dev`).
    strict          such a run is blocked instead. One workflow alone: `@workflow(strict=True)`.
    """

    def __init__(
        self,
        path: Path | str,
        definitions: Iterable[Workflow],
        *,
        durable: Durable | None = None,
        effects_durable: Durable | None = None,
        synchronous: Synchronous = "full",
        checkpoint: bool = False,
        clock: Callable[[], float] = time.time,
        confirm_timeout_s: float = 30.0,
        max_activities: int = 256,
        threads: int = 16,
        keep_idle: int = 256,
        queues: Iterable[Queue] = (),
        schedules: Iterable[Schedule] = (),
        retention: Sequence[Keep] = (),
        codec: Codec | None = None,
        development: bool | None = None,
        strict: bool = False,
    ) -> None:
        path = self._path = Path(path)
        checks = _checks(sys.flags.dev_mode if development is None else development, strict)
        self._definitions = _by_name(definitions, checks)
        self._confirm_timeout_s = confirm_timeout_s
        self._lock: IO[bytes] | None = None
        self._signalling: dict[tuple[str, str], asyncio.Future[int]] = {}
        self._executive = Executive(
            path,
            self._definitions,
            durable=durable,
            effects_durable=effects_durable,
            synchronous=synchronous,
            checkpoint=checkpoint,
            clock=clock,
            max_activities=max_activities,
            threads=threads,
            keep_idle=keep_idle,
            codec=codec,
        )
        self._declared = (tuple(queues), tuple(schedules))
        self._starts = Starts(self._executive, self._definitions, self._confirmed, self.terminate)
        self.schedules = Schedules(self._executive, self._starts, self.terminate, self.cancel, self._confirmed)
        self._retention = Retention(self._executive, retention)
        self._fit = Fit(self._executive, self._definitions.values())

    async def open(self) -> None:
        """Open the file, migrate it, and go on with what was under way.

        Raises AlreadyServed, SchemaTooNew, ForeignFile, InvalidDefinition, or apsw.Error.
        """
        for definition in self._definitions.values():
            definition.check()
        self._lock = hold(self._path)
        try:
            self._executive.open()
            await self._executive.admission.open(self._declared[0])
            await self.schedules.open(self._declared[1])
            self._retention.open()
            self._fit.open()
        except BaseException:
            await self.close(grace_s=0)
            raise

    async def close(self, grace_s: float = 5.0) -> None:
        """Stop: running activities get `grace_s` seconds to end and are cancelled then; they run again when it is
        opened again.
        """
        if self._lock is not None:
            await self.schedules.close()
            await self._retention.close()
            await self._fit.close()
            await self._executive.close(grace_s)
            self._lock.close()
            self._lock = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def workflows(self) -> tuple[str, ...]:
        """The names that can be started."""
        return tuple(self._definitions)

    async def start(
        self,
        workflow: Workflow | str,
        input_json: Any = None,
        run_id: str | None = None,
        *,
        conflict: Conflict = "reject_different",
        queue: str | None = None,
        queue_key: str | None = None,
        priority: int = 0,
        attributes: Mapping[str, Any] | None = None,
    ) -> Started:
        """Start a run with a JSON value, or what has one, as input; returns once that is durable.

        conflict    what happens when a run has this id already (`serve.starts.Conflict`). By default the same workflow
                    and input is that run (`created` is False), and another is a conflict.
        queue       it begins when the queue lets it: in the order of `priority` (the lowest first), as many of one
                    `queue_key` at a time as the queue says.
        attributes  what it can be found by: text, numbers, true or false.

        Raises UnknownWorkflow, InvalidInput, InputConflict, RunExists, NotRecorded (nothing happened), Unconfirmed
        (repeat with the same id), NotOpen.
        """
        self._check_open()
        name = workflow if isinstance(workflow, str) else workflow.name
        return await self._starts.start(
            self._starts.checked(
                name, input_json, self._run_id(run_id), conflict, queue, queue_key, priority, attributes
            )
        )

    async def signal(self, run_id: str, name: str, payload: Any = None, signal_id: str | None = None) -> None:
        """Send a signal with a plain JSON value; returns once that is durable. It is kept until the run waits for it.

        A repeated call with the same `signal_id` is the same signal; without one each call is another.
        Raises NoSuchRun, RunClosed, InvalidInput, NotRecorded, Unconfirmed, NotOpen.
        """
        _check_text("name", name)
        try:
            text = encode(payload, "payload")
        except NotStorable as error:
            raise InvalidInput("payload", str(error)) from None
        facts = {"name": name} if signal_id is None else {"name": name, "signal_id": signal_id}
        item = Item(Draft(Kind.SIGNAL_RECEIVED, facts, text), signal_id=signal_id)
        if signal_id is None:
            await self._send(run_id, item)
            return
        _check_text("signal_id", signal_id)
        key = (run_id, signal_id)
        while (other := self._signalling.get(key)) is not None:
            await asyncio.wait([other])
        if self._row(run_id) and self._executive.store.signal_seq(run_id, signal_id) is not None:
            await self._confirmed(run_id, self._executive.writer.commits)
            return
        await self._send(run_id, item, key)

    async def cancel(self, run_id: str) -> None:
        """Ask a run to end; returns once that is durable. Its code gets `Cancelled` where it waits and may clean up.

        Asked again it does nothing more. Raises NoSuchRun, RunClosed, NotRecorded, Unconfirmed, NotOpen.
        """
        await self._send(run_id, Item(Draft(Kind.CANCEL_REQUESTED, {})))

    async def terminate(self, run_id: str, reason: str = "") -> None:
        """End a run at once; returns once that is durable. Its code does not run again, not even to clean up.

        Raises NoSuchRun, RunClosed, InvalidInput, NotRecorded, Unconfirmed, NotOpen.
        """
        if len(reason) > MAX_REASON:
            raise InvalidInput("reason", f"at most {MAX_REASON} characters")
        facts = {"error": {"type": "Terminated", "message": reason}}
        await self._send(run_id, Item(Draft(Kind.TERMINATED, facts)))

    async def pause(self, run_id: str) -> None:
        """Hold a run; returns once that is durable. Nothing new of it is begun: its code does not go on and activities
        that wait are not tried. What comes is recorded: results of activities that run, signals, timers.

        A cancellation resumes it. Raises NoSuchRun, RunClosed, NotRecorded, Unconfirmed, NotOpen.
        """
        await self._send(run_id, Item(Draft(Kind.PAUSED, {})))

    async def resume(self, run_id: str) -> None:
        """Let a paused run go on, with all that came meanwhile; returns once that is durable.

        Raises NoSuchRun, RunClosed, NotRecorded, Unconfirmed, NotOpen.
        """
        await self._send(run_id, Item(Draft(Kind.RESUMED, {})))

    async def fork(
        self,
        run_id: str,
        *,
        seq: int | None = None,
        step: int | None = None,
        new_id: str | None = None,
        workflow: str | None = None,
    ) -> Started:
        """Start a run from the first events of another, open or closed; returns once that is durable.

        It shares the events up to number `seq`, or those before step `step` had a result (so that step is done again),
        or all but the end. What they record is not done again; what follows is, by this code or by that of `workflow`.
        The same fork again with its `new_id` is the run that exists.

        Raises NoSuchRun, UnknownWorkflow, InvalidInput, InputConflict, NotRecorded, Unconfirmed, NotOpen.
        """
        source, store = self._row(run_id), self._executive.store
        name = workflow or source.name
        if name not in self._definitions:
            raise UnknownWorkflow(name, tuple(self._definitions))
        history = store.events(run_id)
        count, new_id = cut(history, seq, step), self._run_id(new_id)
        row, whole = store.row(new_id), seq is None and step is None
        if row is not None or self._executive.in_memory(new_id):
            alike = row is not None and was_forked_alike(
                row, run_id, name, history[:count], store.events(new_id), whole
            )
            if not alike:
                raise InputConflict(new_id, "something else")
            await self._confirmed(new_id, self._executive.writer.commits)
            return Started(new_id, created=False)
        await self._executive.write(lambda db: copy(db, source, new_id, count, name, whole), f"run {new_id}")
        commit = self._executive.writer.commits
        self._executive.adopt(new_id)
        await self._confirmed(new_id, commit)
        return Started(new_id, created=True)

    async def query(self, run_id: str, name: str, *args: Any) -> Any:
        """What the run's code answers (`ctx.on_query`) as of its last recorded event, plain JSON in and out.

        It is asked in a replay of its log that is thrown away, so nothing is ever changed by it, and closed runs answer
        too. Raises NoSuchRun, NoSuchQuery, InvalidInput, QueryFailed, RunBlocked, LogDamaged, NotOpen.
        """
        row = self._row(run_id)
        return await ask_run(self._executive.store, self._definitions, row, name, args)

    async def put_queue(self, queue: Queue) -> None:
        """Make a queue, or change its limits; returns once that is durable.

        Raises NotRecorded, Unconfirmed, NotOpen.
        """
        self._check_open()
        await self._executive.admission.put(queue)
        await self._confirmed(f"queue {queue.name}", self._executive.writer.commits)

    def queues(self) -> Sequence[tuple[Queue, int]]:
        """Every queue, and how many runs wait in it. Raises NotOpen."""
        depths = self._executive.store.depths()
        return [(queue, depths.get(queue.name, 0)) for queue in self._executive.admission.queues]

    def depth(self, queue: str) -> int:
        """How many runs wait in a queue. Raises NotOpen."""
        return self._executive.store.depths().get(queue, 0)

    @property
    def backlog(self) -> int:
        """How many activities wait for a free place."""
        return self._executive.backlog

    async def result(self, run_id: str, timeout_s: float | None = None) -> Run:
        """The run once it has ended and that is durable, or as it is after `timeout_s` seconds. Raises NoSuchRun,
        NotOpen.

        A blocked run has not ended. `Run.unwrap` gives its result or raises.
        """
        row = self._row(run_id)
        try:
            async with asyncio.timeout(timeout_s):
                await self._executive.ends.wait(run_id, row.state in CLOSED)
        except TimeoutError:
            pass
        return self.get(run_id)

    def get(self, run_id: str) -> Run:
        """The run as it is. One whose end is not confirmed yet is shown as running. Raises NoSuchRun, NotOpen."""
        return self._shown(self._row(run_id))

    def list(
        self,
        state: State | None = None,
        workflow: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        **more: Any,
    ) -> Page:
        """Runs, newest first, at most `limit` (1 to 1,000). `more` are the other fields of `log.search.Search`.

        Raises InvalidInput, NotOpen.
        """
        search = Search(state=state, workflow=workflow, **more)
        _check_limit(limit)
        hidden = self._executive.ends.hidden if state == "running" else ()
        rows, following = self._executive.store.page(search, limit, cursor, hidden)
        runs = (self._shown(row) for row in rows)
        return Page(tuple(run for run in runs if state is None or run.state == state), following)

    def history(self, run_id: str, after: int = 0, limit: int | None = None) -> Sequence[Event]:
        """The run's log, payloads inline, from the event behind number `after`, at most `limit` (1 to 1,000) of it; its
        end only once that is confirmed.

        Raises NoSuchRun, InvalidInput, NotOpen.
        """
        if limit is not None:
            _check_limit(limit)
        self._check_open()
        events = self._executive.store.events(run_id, after, -1 if limit is None else limit)
        # The row as it is behind the events: an end among them is one that it has.
        return without_end(events) if self._hidden_end(self._row(run_id)) else events

    def follow(self, run_id: str, after: int = 0, incarnation: int | None = None) -> AsyncIterator[Sequence[Event]]:
        """The run's log from the event behind number `after`, as it grows, a few events at a time, up to its end. When
        it goes on as new, the rest of its log comes first, then the new one's from its first event, `started`.

        incarnation  whose log `after` belongs to (`Run.incarnation`), when the run may have gone on since; by default
                     the newest.

        Raises NoSuchRun, NotOpen.
        """
        from node.workflow.serve.follow import follow  # most processes are never asked

        return follow(self._executive, run_id, after, incarnation)

    def next_due(self) -> float | None:
        """When something is to go on next by itself (unix seconds): a timer, a schedule, a queue. None: nothing.

        Raises NotOpen.
        """
        due_ms = self._executive.next_due_ms()
        return None if due_ms is None else due_ms / 1000

    def on_plan(self, then: Callable[[], None]) -> None:
        """Call `then` whenever `next_due` may have changed."""
        self._executive.on_plan(then)

    def stats(self) -> Stats:
        """A copy of the counters."""
        return self._executive.snapshot()

    def _check_open(self) -> None:
        if not self._executive.accepting:
            raise NotOpen

    def _run_id(self, run_id: str | None) -> str:
        if run_id is None:
            return new_run_id(self._executive.now_ms())
        return check_run_id(run_id)

    def _row(self, run_id: str) -> RunRow:
        self._check_open()
        row = self._executive.store.row(run_id)
        if row is None:
            raise NoSuchRun(run_id)
        return row

    def _hidden_end(self, row: RunRow) -> bool:
        return row.state in CLOSED and not self._executive.ends.is_told(row.id)

    def _shown(self, row: RunRow) -> Run:
        run = self._executive.store.run(row)
        return replace(run, state="running", result=None, error=None) if self._hidden_end(row) else run

    async def _send(self, run_id: str, item: Item, key: tuple[str, str] | None = None) -> None:
        row = self._row(run_id)
        if row.state in CLOSED:
            raise RunClosed(run_id, row.state)
        recorded = item.recorded = asyncio.get_running_loop().create_future()
        if key is not None:
            self._signalling[key] = recorded
            recorded.add_done_callback(lambda _: self._signalling.pop(key, None))
        self._executive.send(self._executive.load(run_id), item)
        await self._confirmed(run_id, await asyncio.shield(recorded))

    async def _confirmed(self, run_id: str, commit: int) -> None:
        try:
            async with asyncio.timeout(self._confirm_timeout_s):
                await self._executive.gate.wait(commit)
        except (TimeoutError, NotOpen):
            raise Unconfirmed(run_id, self._confirm_timeout_s) from None


def _check_text(field: str, text: str) -> None:
    if not 0 < len(text) <= 256:
        raise InvalidInput(field, "from 1 to 256 characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(field, "not valid Unicode text") from None


def _checks(development: bool, strict: bool) -> Checks:
    if strict:
        return "error"
    return "warn" if development else "off"


def _by_name(definitions: Iterable[Workflow], checks: Checks) -> dict[str, Workflow]:
    found: dict[str, Workflow] = {}
    for definition in definitions:
        if not isinstance(definition, Workflow):
            raise InvalidDefinition(
                f"an engine serves workflows, activities are not listed: {definition!r:.80} is none"
            )
        if found.setdefault(definition.name, definition) is not definition:
            raise InvalidDefinition(f"two workflows are named {definition.name!r}; give one of them another name")
    return {name: replace(d, checks=checks) if d.checks == "off" else d for name, d in found.items()}


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidInput("limit", f"from 1 to {MAX_PAGE}")
