"""The tiny HTTP server around `node.workflow` that runs in a tenant's container.

A tenant's code imports two names from here: `durable`, to await before it says "done", and `Problem`, to raise.
"""

from node.worker.durability import durable
from node.worker.problem import Problem

__all__ = ["Problem", "durable"]
