"""Durable workflows on one SQLite file. Stands alone: imports nothing else of this project."""

from node.workflow import errors
from node.workflow.activities.attempts import ActivityInfo, activity_info
from node.workflow.activities.database import configure, open_database
from node.workflow.activities.heartbeat import heartbeat
from node.workflow.activities.logger import activity_log
from node.workflow.core.children import Child
from node.workflow.core.context import Context
from node.workflow.core.declare import activity, workflow
from node.workflow.core.definition import Activity, Retry, Workflow
from node.workflow.core.groups import First
from node.workflow.core.queue import Queue
from node.workflow.core.rehearsal import Replayed, replay
from node.workflow.core.schedule import Schedule
from node.workflow.engine import Engine
from node.workflow.log.codec import Codec
from node.workflow.log.sweep import Keep
from node.workflow.values.events import Event
from node.workflow.values.run import Page, Run, Started, Stats

__all__ = [
    "Activity",
    "ActivityInfo",
    "Child",
    "Codec",
    "Context",
    "Engine",
    "Event",
    "First",
    "Keep",
    "Page",
    "Queue",
    "Replayed",
    "Retry",
    "Run",
    "Schedule",
    "Started",
    "Stats",
    "Workflow",
    "activity",
    "activity_info",
    "activity_log",
    "configure",
    "errors",
    "heartbeat",
    "open_database",
    "replay",
    "workflow",
]
