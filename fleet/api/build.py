"""Puts the API together: routes, errors, the gate, and its OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from fleet.api import apps, details, fleetwide, garbage, nodes, tenants
from fleet.api.gate import OPEN_PATHS, Gate
from fleet.api.parts import Parts
from fleet.api.problems import install
from fleet.api.view import Drain, PutTenant, RestoreTenant

VERSION = "1"


def build(parts: Parts, lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None) -> FastAPI:
    """The ASGI application."""
    app = FastAPI(
        title="fleet", version=VERSION, docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan
    )
    app.state.parts = parts
    for router in (tenants.router, details.router, garbage.router, apps.router, nodes.router, fleetwide.router):
        app.include_router(router)
    install(app)
    app.add_middleware(Gate, tokens=parts.tokens, readonly=parts.readonly)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign] # FastAPI's own way to extend the document
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        components = document.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        for model in (PutTenant, RestoreTenant, Drain):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}", mode="validation")
            schemas.update({name: part for name, part in schema.pop("$defs", {}).items() if name not in schemas})
            schemas[model.__name__] = schema
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, item in document["paths"].items():
            for operation in item.values():
                if path not in OPEN_PATHS:
                    operation["security"] = [{"token": []}]
        app.openapi_schema = document
    return app.openapi_schema
