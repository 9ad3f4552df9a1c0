"""What is used on each machine in one reconcile pass, and who is between two of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from fleet.core.model import Is, holding
from fleet.core.placement import Used
from node.bucket.records import Spec


class Rooms:
    """Counted when it is first asked for, as most passes place nobody. A tenant on its way counts where it goes to as
    well as where it still is: what was found for it stays free.
    """

    def __init__(self, should: Mapping[str, Spec], is_: Is) -> None:
        self._should = should
        self._is = is_
        self._used: dict[str, Used] = {}
        self._counted = False
        self._at: dict[str, set[str]] = {}

    def all(self) -> Mapping[str, Used]:
        """What is used by node."""
        if not self._counted:
            self._counted = True
            for tenant, node in holding(self._is, self._should):
                self._add(tenant, node)
        return self._used

    def without(self, tenant: str) -> Mapping[str, Used]:
        """What the others use: a tenant is not counted against its own place."""
        used = self.all()
        nodes = self._at.get(tenant)
        if not nodes:
            return used
        return {**used, **{node: used[node].minus(self._should[tenant].spec) for node in nodes}}

    def take(self, node: str, tenant: str) -> None:
        """A tenant was placed in this pass."""
        self.all()
        self._add(tenant, node)

    def _add(self, tenant: str, node: str) -> None:
        nodes = self._at.setdefault(tenant, set())
        if node not in nodes:
            nodes.add(node)
            self._used[node] = self._used.get(node, Used()).plus(self._should[tenant].spec)
