"""One seeded fault layer around a Store: every doubtful answer that a real one gives, at random but repeatably.

with faults.seeded(seed) as rng: ...     prints the seed if the test fails
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import TypeVar

from node.bucket.errors import Ambiguous, BucketError, Busy
from node.bucket.store import Entry, Object, Store

SEED_VARIABLE = "TESTS_SEED"

T = TypeVar("T")


class Fault(Enum):
    """What happens to one call. LATER: it lands only before a later call, its caller having got no answer."""

    NONE = auto()
    BUSY = auto()
    NOT_APPLIED = auto()
    APPLIED = auto()
    LATER = auto()


@dataclass(frozen=True)
class Rates:
    """How often each fault happens, each 0..1; what is left over works. `delay_s` is the longest delay of a call."""

    busy: float = 0.1
    not_applied: float = 0.1
    applied: float = 0.1
    later: float = 0.1
    delay_s: float = 0.0


@contextmanager
def seeded(seed: int | None = None) -> Iterator[random.Random]:
    """A source of randomness whose seed is printed if the test fails; `TESTS_SEED` in the environment sets it."""
    chosen = int(os.environ.get(SEED_VARIABLE, "0")) or seed or random.SystemRandom().randrange(1, 1 << 32)
    try:
        yield random.Random(chosen)
    except BaseException:
        print(f"\nfailed with seed {chosen}: run again with {SEED_VARIABLE}={chosen}", file=sys.stderr)
        raise


class FaultyStore:
    """A Store that asks `choose(operation, key)` what goes wrong, then passes on to the real one.

    Not locked: writes that land later do so in the thread of the call that follows.
    """

    def __init__(
        self,
        inner: Store,
        choose: Callable[[str, str], Fault],
        *,
        delay: Callable[[], None] = lambda: None,
    ) -> None:
        self._inner = inner
        self._choose = choose
        self._delay = delay
        self._late: list[Callable[[], object]] = []
        self.log: list[tuple[str, str, Fault]] = []

    @classmethod
    def random(
        cls, inner: Store, rng: random.Random, rates: Rates, *, sleep: Callable[[float], None] | None = None
    ) -> FaultyStore:
        """Faults drawn from `rng`; delays are slept by `sleep`, which may be a simulated clock's."""
        faults = [Fault.BUSY, Fault.NOT_APPLIED, Fault.APPLIED, Fault.LATER]
        weights = [rates.busy, rates.not_applied, rates.applied, rates.later]
        rest = max(0.0, 1.0 - sum(weights))

        def choose(_operation: str, _key: str) -> Fault:
            return rng.choices([*faults, Fault.NONE], [*weights, rest])[0]

        def delay() -> None:
            if sleep is not None and rates.delay_s:
                sleep(rng.uniform(0, rates.delay_s))

        return cls(inner, choose, delay=delay)

    @classmethod
    def scripted(cls, inner: Store, *faults: Fault) -> FaultyStore:
        """These faults in this order, one a call, and none after that."""
        left = list(faults)
        return cls(inner, lambda _operation, _key: left.pop(0) if left else Fault.NONE)

    def settle(self) -> None:
        """Let everything land that is still under way."""
        late, self._late = self._late, []
        for call in late:
            with suppress(BucketError):
                call()

    def get(self, key: str) -> Object:
        """See Store."""
        return self._read("get", key, lambda: self._inner.get(key))

    def create(self, key: str, body: bytes) -> str:
        """See Store."""
        return self._write("create", key, lambda: self._inner.create(key, body))

    def replace(self, key: str, body: bytes, etag: str) -> str:
        """See Store."""
        return self._write("replace", key, lambda: self._inner.replace(key, body, etag))

    def put_file(self, key: str, path: Path) -> None:
        """See Store."""
        self._write("put_file", key, lambda: self._inner.put_file(key, path))

    def get_file(self, key: str, path: Path) -> None:
        """See Store."""
        self._read("get_file", key, lambda: self._inner.get_file(key, path))

    def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> Iterator[Entry]:
        """See Store."""
        self._read("list", prefix, lambda: None)
        yield from self._inner.list(prefix, start_after=start_after, limit=limit)

    def head(self, key: str) -> tuple[Entry, dict[str, str]]:
        """See Store."""
        return self._read("head", key, lambda: self._inner.head(key))

    def delete(self, keys: Iterable[str]) -> None:
        """See Store."""
        chosen = tuple(keys)
        self._write("delete", chosen[0] if chosen else "", lambda: self._inner.delete(chosen))

    def _next(self, operation: str, key: str) -> Fault:
        self._delay()
        self.settle()
        fault = self._choose(operation, key)
        self.log.append((operation, key, fault))
        return fault

    def _read(self, operation: str, key: str, call: Callable[[], T]) -> T:
        fault = self._next(operation, key)
        if fault is Fault.NONE:
            return call()
        raise Busy("faulty", key=key) if fault is Fault.BUSY else Ambiguous("faulty", key=key)

    def _write(self, operation: str, key: str, call: Callable[[], T]) -> T:
        fault = self._next(operation, key)
        if fault is Fault.NONE:
            return call()
        if fault is Fault.BUSY:
            raise Busy("faulty: try again", key=key)
        if fault is Fault.APPLIED:
            call()
        if fault is Fault.LATER:
            self._late.append(call)
        raise Ambiguous(f"faulty: {fault.name}", key=key)
