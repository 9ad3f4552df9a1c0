"""Durable workflows on one SQLite file. Stands alone: imports nothing else of this project."""

from node.workflow import errors
from node.workflow.attempts import ActivityInfo, activity_info
from node.workflow.children import Child
from node.workflow.codec import Codec
from node.workflow.context import Context
from node.workflow.database import configure, open_database
from node.workflow.define import Activity, Retry, Workflow, activity, workflow
from node.workflow.engine import Engine
from node.workflow.events import Event
from node.workflow.groups import First
from node.workflow.heartbeat import heartbeat
from node.workflow.logs import activity_log
from node.workflow.queue import Queue
from node.workflow.rehearsal import Replayed, replay
from node.workflow.retention import Keep
from node.workflow.run import Page, Run, Started, Stats
from node.workflow.schedule import Schedule

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
