"""Agents over HTTP: one client a node, spoken to in the values of `node.api`."""

from __future__ import annotations

import ssl
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from fleet.errors import FleetError, NotFound, Unavailable
from node.api import (
    Assignment,
    GarbageReport,
    GarbageRequest,
    NodeReport,
    Points,
    Problem,
    PurgeReport,
    PurgeRequest,
    TenantReport,
)

T = TypeVar("T", bound=BaseModel)

# An agent only notes an assignment: an answer that takes this long is none.
CALL_S = 10.0
CONNECT_S = 3.0
PURGE_S = 300.0


class AgentRefused(FleetError):
    """The agent answered that it will not do this; its own words are the message."""

    type, title, status, exit_code = "refused", "The node refused", 409, 5


class Agent:
    """One node's agent. Every call raises Unavailable when there is no answer and AgentRefused on a problem."""

    def __init__(self, node: str, url: str, token: str, *, verify: ssl.SSLContext | bool = True) -> None:
        self.node = node
        self.url = url
        timeout = httpx.Timeout(CALL_S, connect=CONNECT_S)
        self._http = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=timeout, verify=verify, trust_env=False
        )

    async def close(self) -> None:
        """Drop the connections."""
        await self._http.aclose()

    async def assign(self, assignment: Assignment) -> TenantReport:
        """Tell the agent what to make true of a tenant."""
        body = assignment.model_dump_json().encode()
        return await self._call("PUT", f"/v1/tenants/{assignment.tenant}", TenantReport, body=body)

    async def state(self, version: int, wait_s: float) -> NodeReport:
        """What the agent knows, once it is newer than `version` or `wait_s` seconds have gone by."""
        path = f"/v1/state?version={version}&wait={wait_s:g}"
        return await self._call("GET", path, NodeReport, timeout_s=wait_s + CALL_S)

    async def points(self, tenant: str) -> Points:
        """The moments that a tenant can be restored to."""
        return await self._call("GET", f"/v1/tenants/{tenant}/points", Points, timeout_s=60.0)

    async def purge(self, tenant: str, epoch: int) -> PurgeReport:
        """Delete a tombstoned tenant's data, as much as the agent does at a time."""
        body = PurgeRequest(epoch=epoch).model_dump_json().encode()
        return await self._call("POST", f"/v1/purge/{tenant}", PurgeReport, body=body, timeout_s=PURGE_S)

    async def collect(self, tenant: str, *, dry_run: bool) -> GarbageReport:
        """Delete what of a tenant is garbage there, or say what would go."""
        body = GarbageRequest(dry_run=dry_run).model_dump_json().encode()
        return await self._call("POST", f"/v1/gc/{tenant}", GarbageReport, body=body, timeout_s=PURGE_S)

    async def logs(self, tenant: str, params: dict[str, str]) -> httpx.Response:
        """A tenant's log as an open stream: the caller iterates and closes it. No time limit between two lines."""
        timeout = httpx.Timeout(CALL_S, connect=CONNECT_S, read=None if params.get("follow") == "true" else CALL_S)
        request = self._http.build_request("GET", f"/v1/tenants/{tenant}/logs", params=params, timeout=timeout)
        try:
            answer = await self._http.send(request, stream=True)
            if answer.status_code >= 400:
                await answer.aread()
        except httpx.HTTPError as e:
            raise Unavailable(f"the agent of node {self.node} does not answer: {_why(e)}", tenant=tenant) from e
        if answer.status_code >= 400:
            self._refuse(answer, tenant)
        return answer

    async def _call(
        self, method: str, path: str, kind: type[T], *, body: bytes | None = None, timeout_s: float = CALL_S
    ) -> T:
        tenant = path.split("/")[3].split("?")[0] if path.count("/") > 2 else None
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            timeout = httpx.Timeout(timeout_s, connect=CONNECT_S)
            answer = await self._http.request(method, path, content=body, headers=headers, timeout=timeout)
        except httpx.HTTPError as e:
            raise Unavailable(f"the agent of node {self.node} does not answer: {_why(e)}", tenant=tenant) from e
        if answer.status_code >= 400:
            self._refuse(answer, tenant)
        try:
            return kind.model_validate_json(answer.content)
        except ValidationError as e:
            raise Unavailable(f"the agent of node {self.node} answered what is not understood: {e}") from e

    def _refuse(self, answer: httpx.Response, tenant: str | None) -> None:
        try:
            problem = Problem.model_validate_json(answer.content)
            said = problem.detail or problem.title
        except ValidationError:
            said = f"HTTP {answer.status_code}"
        message = f"node {self.node}: {said}"
        if answer.status_code in (401, 403):
            raise Unavailable(f"{message}; controller and nodes need the same FLEET_TOKEN", tenant=tenant)
        if answer.status_code == 404:
            raise NotFound(message, tenant=tenant)
        if answer.status_code >= 500 or answer.status_code == 429:
            raise Unavailable(message, tenant=tenant)
        raise AgentRefused(message, tenant=tenant)


def _why(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__
