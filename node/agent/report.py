"""The board that a controller reads: every tenant's report, with a version that grows so that readers can wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from node.api import NodeReport, TenantReport


@dataclass
class Board:
    """Lives on the event loop's thread. `clock` is unix time; `node` makes the report's head."""

    clock: Callable[[], float]
    node: Callable[[int, tuple[TenantReport, ...]], NodeReport]
    version: int = 0
    _reports: dict[str, TenantReport] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def get(self, tenant: str) -> TenantReport:
        """The tenant's report; `pending` before there is one."""
        return self._reports.get(tenant) or TenantReport(tenant=tenant, state="pending", since=self.clock())

    def update(self, tenant: str, **changes: Any) -> TenantReport:
        """Change fields of a report. `since` follows the state by itself."""
        old = self.get(tenant)
        if changes.get("state", old.state) != old.state:
            changes.setdefault("since", self.clock())
        new = old.model_copy(update=changes)
        if new != old or tenant not in self._reports:
            self._reports[tenant] = new
            self.touch()
        return new

    def tenants(self) -> tuple[TenantReport, ...]:
        """All reports, by name."""
        return tuple(self._reports[t] for t in sorted(self._reports))

    def touch(self) -> None:
        """Something in the head of the report changed (session, fenced)."""
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def read(self, after: int, wait_s: float) -> NodeReport:
        """The report, once its version is past `after` or `wait_s` seconds have gone by."""
        if self.version <= after and wait_s > 0:
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                pass
        return self.node(self.version, self.tenants())
