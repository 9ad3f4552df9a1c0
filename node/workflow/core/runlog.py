"""Log messages of workflow code: they carry the run they are about, and a replay does not repeat them."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from node.workflow.core.inside import Inside

if TYPE_CHECKING:
    Adapter = logging.LoggerAdapter[logging.Logger]
else:
    Adapter = logging.LoggerAdapter


class RunLog(Adapter):
    """`ctx.log`: the logger `workflow.<name>`, silent while the log is replayed."""

    def __init__(self, machine: Inside) -> None:
        super().__init__(logging.getLogger(f"workflow.{machine.definition.name}"), None)
        self._machine = machine

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name that logging gave it
        return not self._machine.loading and not self._machine.dropped and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        known = {"run_id": self._machine.run_id, "workflow": self._machine.definition.name}
        return msg, {**kwargs, "extra": {**known, **(kwargs.get("extra") or {})}}
