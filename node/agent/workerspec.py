"""From what is wanted of a tenant to the worker container that it means. Pure."""

from __future__ import annotations

from pathlib import Path

from node.agent.ports import Volume, WorkerSpec
from node.api import Assignment

DOOR = "/run/fleet/agent.sock"


def image_of(image: str | None, prefix: str) -> str:
    """The image that serves a spec: its own, or our worker's."""
    return image or f"{prefix}/worker:latest"


def format_rpo(rpo_s: float) -> str:
    """`0` or whole seconds, as the worker reads it."""
    return "0" if rpo_s == 0 else f"{rpo_s:g}s"


def worker_spec(
    want: Assignment,
    *,
    epoch: int,
    session: int,
    uid: int,
    volume: Volume,
    app: Path | None,
    secrets: Path | None,
    image_prefix: str,
) -> WorkerSpec:
    """The container of a tenant's worker. What the user set in `env` can't replace what the node tells the worker."""
    spec = want.spec
    told = {
        "NODE_TENANT": want.tenant,
        "NODE_DATA": "/data",
        "NODE_PORT": str(spec.port),
        "NODE_RPO": format_rpo(spec.rpo),
        "NODE_DOOR": DOOR,
    }
    if spec.app is not None:
        told["NODE_APP"] = "/app"
    return WorkerSpec(
        tenant=want.tenant,
        epoch=epoch,
        session=session,
        generation=want.generation,
        image=image_of(spec.image, image_prefix),
        uid=uid,
        volume=volume,
        port=spec.port,
        memory_bytes=spec.limits.memory,
        cpus=spec.limits.cpus,
        pids=spec.limits.pids,
        env={**spec.env, **told},
        command=spec.command,
        writable=spec.writable,
        app=app,
        secrets=secrets,
        egress=spec.egress == "on",
    )
