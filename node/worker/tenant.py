"""The tenant's code: a folder with an `app.py` that declares workflows, and maybe routes of its own.

`app.py` may have a list `routes` of Starlette routes, or any ASGI application (its lifespan included) under the name
`asgi`. It may say what `Engine` is told: lists `queues`, `schedules` and `retention`, and a `codec`. Dependencies lie
in a folder `vendor` beside it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

from node.worker.http import Asgi
from node.worker.problem import CONTENT_TYPE, INTERNAL, Problem
from node.workflow import Workflow
from node.workflow.values.dataclass import dataclass

ENGINE_OPTIONS: Final = ("queues", "schedules", "retention", "codec")


class TenantError(Exception):
    """The tenant's folder has no code that can be served; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """What was found in a tenant's folder."""

    workflows: tuple[Workflow, ...]
    asgi: Asgi | None
    engine: Mapping[str, Any] = field(default_factory=dict)


def load_tenant(folder: Path) -> Tenant:
    """Imports `app.py` of a folder. Raises TenantError when it isn't there or declares nothing; its own errors pass."""
    if not (folder / "app.py").is_file():
        raise TenantError(f"{folder} has no app.py: put the tenant's workflows there, or set NODE_APP to their folder")
    for path in (folder / "vendor", folder):
        if str(path) not in sys.path:
            sys.path.insert(0, str(path))
    module = importlib.import_module("app")
    workflows = tuple({id(value): value for value in vars(module).values() if isinstance(value, Workflow)}.values())
    asgi = _asgi(module)
    if not workflows and asgi is None:
        raise TenantError(f"{folder / 'app.py'} declares neither a @workflow nor routes: there is nothing to serve")
    return Tenant(workflows, asgi, {name: getattr(module, name) for name in ENGINE_OPTIONS if hasattr(module, name)})


def _asgi(module: ModuleType) -> Asgi | None:
    routes = getattr(module, "routes", None)
    if routes is None:
        asgi: Asgi | None = getattr(module, "asgi", None)
        return asgi
    return _starlette(routes)


def _starlette(routes: Any) -> Asgi:
    # Imported here: only who declares routes pays for the framework.
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response

    async def answer(_: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            headers = tuple((error.headers or {}).items())
            error = Problem(error.status_code, "http", error.detail, headers=headers)
        if not isinstance(error, Problem):
            error = INTERNAL  # the framework raises it on, to be logged
        return Response(error.body(), error.status, headers=dict(error.headers), media_type=CONTENT_TYPE)

    application: Any = Starlette(
        routes=routes, exception_handlers=dict.fromkeys((HTTPException, Problem, Exception), answer)
    )
    return cast(Asgi, application)
