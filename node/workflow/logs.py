"""Log messages that carry the run they are about, and that a replay does not repeat."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from node.workflow.attempts import activity_info

if TYPE_CHECKING:
    from node.workflow.machine import Machine

    Adapter = logging.LoggerAdapter[logging.Logger]
else:
    Adapter = logging.LoggerAdapter


class RunLog(Adapter):
    """`ctx.log`: the logger `workflow.<name>`, silent while the log is replayed."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(logging.getLogger(f"workflow.{machine.definition.name}"), None)
        self._machine = machine

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name that logging gave it
        return not self._machine.loading and not self._machine.dropped and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        known = {"run_id": self._machine.run_id, "workflow": self._machine.definition.name}
        return msg, {**kwargs, "extra": {**known, **(kwargs.get("extra") or {})}}


class ActivityLog(Adapter):
    """`activity_log`: messages from activities carry the run, the workflow, the activity and the attempt."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        try:
            info = activity_info()
        except LookupError:  # called outside of an activity
            return msg, kwargs
        known = {
            "run_id": info.run_id,
            "workflow": info.workflow,
            "activity": info.activity,
            "attempt": info.attempt,
        }
        return msg, {**kwargs, "extra": {**known, **(kwargs.get("extra") or {})}}


activity_log = ActivityLog(logging.getLogger("workflow.activity"), None)
