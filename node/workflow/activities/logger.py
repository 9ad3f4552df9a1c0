"""Log messages of activities: they carry the attempt they are about."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from node.workflow.activities.attempts import activity_info

if TYPE_CHECKING:
    Adapter = logging.LoggerAdapter[logging.Logger]
else:
    Adapter = logging.LoggerAdapter


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
