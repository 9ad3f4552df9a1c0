"""How often answers that lead nowhere may be looked for in the bucket: what a stranger can make this node spend."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

NAMES_FOR_S = 30.0


@dataclass(frozen=True, slots=True)
class Tokens:
    """So many at once, so many a second for ever; `left` at the moment `at`."""

    burst: float
    per_s: float
    left: float
    at: float

    def at_now(self, now: float) -> Tokens:
        """With what came since."""
        return Tokens(self.burst, self.per_s, min(self.burst, self.left + (now - self.at) * self.per_s), now)

    def plus(self, count: float) -> Tokens:
        """With so many more, or fewer."""
        return Tokens(self.burst, self.per_s, min(self.burst, self.left + count), self.at)


class Budget:
    """Looks at unknown names, and beyond these at names of tenants that there are, listed at most every NAMES_FOR_S.

    Names that nobody has cost at most 60 reads at once and 1 a second; tenants that are down 200 and 20. Safe from many
    threads; `names` may raise the store's errors.
    """

    def __init__(self, clock: Callable[[], float], names: Callable[[], set[str]]) -> None:
        self._clock = clock
        self._names = names
        self._lock = threading.Lock()
        now = clock()
        self._any = Tokens(60, 1, 60, now)
        self._known = Tokens(200, 20, 200, now)
        self._listed: set[str] = set()
        self._listed_at: float | None = None

    def allows(self, tenant: str) -> bool:
        """Whether the tenant may be looked for now; that is paid for at once."""
        with self._lock:
            now = self._clock()
            self._any, self._known = self._any.at_now(now), self._known.at_now(now)
            if self._any.left >= 1:
                self._any = self._any.plus(-1)
                return True
            if self._known.left < 1:
                return False
            if self._listed_at is None or now >= self._listed_at + NAMES_FOR_S:
                self._listed_at = now
                self._listed = self._names()
            if tenant not in self._listed:
                return False
            self._known = self._known.plus(-1)
            return True

    def refund(self) -> None:
        """The look found a node, or one whose tenants are on their way: whoever asked was no stranger."""
        with self._lock:
            self._any, self._known = self._any.plus(1), self._known.plus(1)
