"""The one error tree of the library.

Every error says what happened to which run and what to do; it carries the HTTP status a server answers with, the exit
code a command ends with, and whether the same call may succeed when it is repeated.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final


class WorkflowError(Exception):
    """Base of everything the library raises on purpose."""

    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False


class InvalidDefinition(WorkflowError):
    """A workflow or activity is declared in a way that cannot work."""

    exit_code = 2


class InvalidInput(WorkflowError):
    """A value does not fit the declared type; `field` is its path, such as `input.items[3].price`."""

    http_status = 422
    exit_code = 2

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class NotStorable(WorkflowError):
    """A value that workflow code or an activity hands over has no JSON form."""

    exit_code = 2


class UnknownWorkflow(WorkflowError):
    """No definition has this name."""

    http_status = 404
    exit_code = 2

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"no workflow is named {name!r}; this code has: {', '.join(known) or 'none'}")
        self.name = name


class NoSuchRun(WorkflowError):
    """No run has this id."""

    http_status = 404
    exit_code = 2

    def __init__(self, run_id: str) -> None:
        super().__init__(f"no run has the id {run_id!r}")
        self.run_id = run_id


class InputConflict(WorkflowError):
    """A run with this id exists and was started with another workflow or input."""

    http_status = 409
    exit_code = 2

    def __init__(self, run_id: str, difference: str) -> None:
        super().__init__(f"run {run_id!r} exists and was started with {difference}; choose another id")
        self.run_id = run_id


class NoSuchSchedule(WorkflowError):
    """No schedule has this id."""

    http_status = 404
    exit_code = 2

    def __init__(self, schedule_id: str) -> None:
        super().__init__(f"no schedule has the id {schedule_id!r}")
        self.schedule_id = schedule_id


class RunExists(WorkflowError):
    """A run with this id exists, and the start said that there must be none."""

    http_status = 409
    exit_code = 2

    def __init__(self, run_id: str, state: str) -> None:
        super().__init__(f"run {run_id!r} exists and is {state}; choose another id, or another conflict policy")
        self.run_id = run_id
        self.state = state


class RunClosed(WorkflowError):
    """The run has ended, so it takes neither signals nor a cancellation."""

    http_status = 409

    def __init__(self, run_id: str, state: str) -> None:
        super().__init__(f"run {run_id!r} is {state}; nothing more can be sent to it")
        self.run_id = run_id
        self.state = state


class RunFailed(WorkflowError):
    """Raised by `Run.unwrap` for a failed run; `error` is what the log has: type, message, traceback."""

    def __init__(self, run_id: str, error: dict[str, Any]) -> None:
        super().__init__(f"run {run_id!r} failed: {error.get('type')}: {error.get('message')}")
        self.run_id = run_id
        self.error = error


class RunCancelled(WorkflowError):
    """Raised by `Run.unwrap` for a cancelled run."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id!r} was cancelled")
        self.run_id = run_id


class RunTerminated(WorkflowError):
    """Raised by `Run.unwrap` for a run that was ended without its code."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id!r} was terminated")
        self.run_id = run_id


class RunContinued(WorkflowError):
    """Raised by `Run.unwrap` for a run that another one goes on for."""

    def __init__(self, run_id: str, continued_to: str | None) -> None:
        super().__init__(f"run {run_id!r} goes on as {continued_to!r}; ask for that one")
        self.run_id = run_id
        self.continued_to = continued_to


class RunBlocked(WorkflowError):
    """The code does not fit what the run's log says; it goes on when code that fits is started."""

    http_status = 409

    def __init__(self, run_id: str, error: dict[str, Any]) -> None:
        super().__init__(f"run {run_id!r} is blocked: {error.get('message')}")
        self.run_id = run_id
        self.error = error


class RunNotFinished(WorkflowError):
    """Raised by `Run.unwrap` while the run is still under way; ask again."""

    http_status = 409
    retryable = True

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id!r} is still under way; wait for its result")
        self.run_id = run_id


class Mismatch(WorkflowError):
    """What the code does next differs from what the log recorded; both sides are kept."""

    def __init__(self, run_id: str, seq: int, recorded: str, code: str, where: str | None = None) -> None:
        line = "" if where is None else f" ({where})"
        super().__init__(
            f"at event {seq} the log recorded {recorded}, the code now does {code}{line}; "
            "start code that fits the log, and the run goes on"
        )
        self.where = where
        self.run_id = run_id
        self.seq = seq
        self.recorded = recorded
        self.code = code


class LogDamaged(WorkflowError):
    """An event of the log can't be read."""

    def __init__(self, run_id: str, seq: int, problem: str) -> None:
        super().__init__(
            f"run {run_id!r}: event {seq} of the log can't be read: {problem}; "
            "restore the file to a time before the damage"
        )
        self.run_id = run_id
        self.seq = seq


class Undecodable(LogDamaged):
    """A value of the log was written with another codec than the one that is given."""

    def __init__(self, run_id: str, seq: int, problem: str) -> None:
        WorkflowError.__init__(
            self,
            f"run {run_id!r}: a value of event {seq} can't be decoded: {problem}; "
            "start with the codec and the key that it was written with, and the run goes on",
        )
        self.run_id = run_id
        self.seq = seq


class ForeignAwait(WorkflowError):
    """Workflow code awaited something that is not recorded, such as `asyncio.sleep`."""

    def __init__(self, run_id: str, awaited: str, where: str) -> None:
        super().__init__(
            f"workflow code awaits {awaited} ({where}); only what the context offers is recorded: "
            "use ctx.run, ctx.sleep, ctx.wait_signal, ctx.gather or ctx.timeout"
        )
        self.run_id = run_id
        self.awaited = awaited
        self.where = where


class Nondeterministic(WorkflowError):
    """Workflow code with strict checks did something that a replay would not see the same way."""

    def __init__(self, what: str, why: str, where: str) -> None:
        super().__init__(f"workflow code calls {what} ({where}), which {why}; start code that does not")
        self.what = what
        self.where = where


class ActivityFailed(WorkflowError):
    """An activity failed for good; raised in workflow code, at the `ctx.run` that asked for it.

    `type` is the name of the exception's class (`TimeoutError` for an attempt past its timeout).
    """

    def __init__(self, activity: str, type: str, message: str, attempts: int) -> None:
        super().__init__(f"activity {activity} failed after {attempts} attempt(s): {type}: {message}")
        self.activity = activity
        self.type = type
        self.message = message
        self.attempts = attempts


class ChildFailed(WorkflowError):
    """A child ended without a result; raised in workflow code, where it waits for the child.

    `state` is `failed`, `cancelled`, `terminated`, or `refused` when it could not be started.
    """

    def __init__(self, workflow: str, run_id: str, state: str, type: str, message: str) -> None:
        super().__init__(f"child {run_id!r} ({workflow}) is {state}: {type}: {message}")
        self.workflow = workflow
        self.run_id = run_id
        self.state = state
        self.type = type
        self.message = message


class ContinuesForEver(WorkflowError):
    """A run continued as new many times in a row without waiting for anything in between."""

    def __init__(self, run_id: str, times: int) -> None:
        super().__init__(
            f"run {run_id!r} continued as new {times} times without waiting for anything; start code that waits"
        )
        self.run_id = run_id


class NoSuchQuery(WorkflowError):
    """The run's code has no handler for this query, or has not come to where it declares it."""

    http_status = 404
    exit_code = 2

    def __init__(self, run_id: str, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"run {run_id!r} answers no query {name!r}; it answers: {', '.join(known) or 'none'}")
        self.run_id = run_id
        self.name = name


class QueryFailed(WorkflowError):
    """The handler of a query raised something."""

    def __init__(self, run_id: str, name: str, problem: str) -> None:
        super().__init__(f"query {name!r} to run {run_id!r} failed: {problem}; the run is as it was")
        self.run_id = run_id
        self.name = name


class QueryWrites(WorkflowError):
    """The handler of a query used the context to change the run. A query only reads."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"a query to run {run_id!r} used ctx to change the run: a query only reads; nothing was done")
        self.run_id = run_id


class WaitTimeout(WorkflowError, TimeoutError):
    """No signal came in time; raised in workflow code, at the `ctx.wait_signal` that waited."""

    def __init__(self, signal: str) -> None:
        super().__init__(f"no signal {signal!r} within the time given")
        self.signal = signal


class ScopeTimeout(WorkflowError, TimeoutError):
    """What ran in a `ctx.timeout` did not end in time; raised where the scope ends, after its cleanup."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no end within the {seconds:g} s of ctx.timeout")
        self.seconds = seconds


class Unconfirmed(WorkflowError):
    """The call is recorded here but not yet confirmed as durable: its outcome is unknown.

    Repeat it with the same id.
    """

    http_status = 503
    retryable = True

    def __init__(self, run_id: str, waited_s: float) -> None:
        super().__init__(
            f"run {run_id!r}: recorded, but not confirmed as durable within {waited_s:g} s; "
            "repeat the call with the same id"
        )
        self.run_id = run_id


class NotRecorded(WorkflowError):
    """The log could not be written (a full disk, an I/O error): nothing of the call happened."""

    http_status = 507
    retryable = True

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(
            f"run {run_id!r}: the log could not be written, nothing was done: {reason}; free space and repeat"
        )
        self.run_id = run_id


class NotOpen(WorkflowError):
    """The engine is not open, or is closing."""

    http_status = 503
    retryable = True

    def __init__(self) -> None:
        super().__init__("the engine is not open; open it first, or repeat the call when the server is back")


class SchemaTooNew(WorkflowError):
    """The file was written by a newer version of the library."""

    def __init__(self, path: str, found: int, known: int) -> None:
        super().__init__(
            f"{path} has schema {found}, this version knows {known}: start the newer version that wrote it; "
            "nothing was changed"
        )
        self.found = found
        self.known = known


class ForeignFile(WorkflowError):
    """The file is a database of something else."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is a database, but not a workflow log: give another path; nothing was changed")


class AlreadyServed(WorkflowError):
    """Another process has this log open for serving."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is served by another process: stop that one first, or give another path")


class Cancelled(BaseException):
    """Thrown into workflow code where it waits, when its run or a scope around it is cancelled.

    Catch it only to clean up, and let it go on; what the cleanup awaits from the context works as always. `scope` is
    the number of the scope that is cancelled, None for the run or a branch of it.
    """

    def __init__(self, scope: int | None = None) -> None:
        super().__init__()
        self.scope = scope


class AttemptOver(BaseException):
    """Raised by `heartbeat()` in a sync activity whose attempt is cancelled or past its time. Clean up, let it pass."""


class ContinueAsNew(BaseException):
    """Raised by `ctx.continue_as_new` through the workflow's code; `text` is the next run's input, JSON."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class Evicted(BaseException):
    """Unwinds the coroutine of a run that leaves memory; its `finally` blocks must not act."""


UNWINDING: Final = (Evicted, GeneratorExit, KeyboardInterrupt)  # nothing is awaited behind one of these
