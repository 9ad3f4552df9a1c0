"""Where changes of what should be are made: read, decide purely, compare-and-swap; again if somebody was faster."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fleet.bucket import Bucket, translated
from fleet.core import change
from fleet.core.change import Refused
from fleet.errors import Conflict, FleetError, Invalid, NotFound, OutcomeUnknown, Stale, Unavailable
from fleet.events import Events
from fleet.shelf import Shelf
from fleet.vault import Vault
from fleet.world import World
from node.bucket import keys
from node.bucket.cas import Held, new_nonce
from node.bucket.errors import Conflict as Lost
from node.bucket.records import Restore, Spec
from node.bucket.spec import SecretRef, TenantSpec

_ATTEMPTS = 5
# A request that got no answer may be applied this much later; specs are looked at more often meanwhile.
DOUBT_S = 600.0

Decide = Callable[[Spec | None], Spec | None]


@dataclass(frozen=True, slots=True)
class Expect:
    """What a caller's `If-Match` and `If-None-Match` ask for. `generations` None: any; empty: none may exist."""

    generations: frozenset[int] | None = None
    exists: bool | None = None

    def check(self, tenant: str, current: Spec | None) -> None:
        """Raises Stale."""
        here = current is not None and not gone(current)
        if self.exists is not None and self.exists != here:
            raise Stale(f"{tenant} {'exists already' if here else 'does not exist'}", tenant=tenant)
        if self.generations is not None and (current is None or not here or current.generation not in self.generations):
            now = f"is at generation {current.generation}" if current is not None and here else "does not exist"
            raise Stale(f"{tenant} {now}; read it again and repeat the change", tenant=tenant)


ANY = Expect()


@dataclass(frozen=True, slots=True)
class Changed:
    """A spec after a change; `old` is the one before it, None if it is new; `made`: there is a new generation."""

    spec: Spec
    old: Spec | None
    made: bool


def gone(spec: Spec) -> bool:
    """Whether a tenant is purged to the end: to the API there is none."""
    return spec.want == "purged" and spec.purge_after is None


class Desk:
    """Makes changes. After each the world knows the new spec, so that it is acted on at once."""

    def __init__(
        self,
        world: World,
        bucket: Bucket,
        vault: Vault,
        events: Events,
        shelf: Shelf,
        written: Callable[[], None] = lambda: None,
    ) -> None:
        """`written` is called after each change that was made."""
        self._written = written
        self._world = world
        self._bucket = bucket
        self._vault = vault
        self._events = events
        self._shelf = shelf

    def find(self, tenant: str) -> Spec:
        """A tenant's spec. Raises NotFound; Unavailable before everything is known."""
        spec = self._world.specs.get(tenant)
        if spec is None:
            self.all_known(tenant)
        if spec is None or gone(spec):
            raise not_found(tenant)
        return spec

    def all_known(self, tenant: str | None = None) -> None:
        """What was not read yet must not be taken for what is not there. Raises Unavailable."""
        if not self._world.loaded:
            why = self._bucket.error or "it is being read; ask again in a moment"
            raise Unavailable(f"the bucket was not read yet: {why}", tenant=tenant)

    async def put(
        self, tenant: str, spec: TenantSpec, secrets: dict[str, str], access: str, expect: Expect = ANY
    ) -> Changed:
        """Want this tenant up with this spec, and these secrets' values. `access` is what no choice means."""
        decided = spec.model_copy(update={"access": spec.access or access})
        now = self._world.clock
        await self._decide(
            tenant, lambda s: change.put(s, tenant, decided, now()), expect
        )  # before anything is written
        await self._app_exists(tenant, spec)
        await self._vault.check(tenant, {n: ref for n, ref in spec.secrets.items() if n not in secrets})
        refs = dict(spec.secrets)
        for name, value in secrets.items():
            refs[name] = await self._vault.put(tenant, name, value)
        if decided.access == "token":
            await self._vault.access_token(tenant, make=True)
        whole = decided.model_copy(update={"secrets": refs})
        return await self.change(tenant, lambda s: change.put(s, tenant, whole, now()), "up", expect=expect)

    async def preview(self, tenant: str, spec: TenantSpec, secrets: dict[str, str], access: str) -> Changed:
        """What `put` would do; writes nothing. A secret that is given counts as a new version."""
        current = await self._current(tenant)
        refs = {**spec.secrets}
        for name in secrets:
            known = current.spec.secrets.get(name) if current is not None else None
            refs[name] = known.model_copy(update={"version": known.version + 1}) if known else SecretRef(version=1)
        whole = spec.model_copy(update={"access": spec.access or access, "secrets": refs})
        with _refusals(tenant):
            new = change.put(current, tenant, whole, self._world.clock())
        shown = new or current
        if shown is None:
            raise not_found(tenant)
        old = current if current is not None and not gone(current) else None
        return Changed(shown, old, new is not None)

    async def stop(self, tenant: str, expect: Expect = ANY) -> Changed:
        """Want it down, its last byte confirmed."""
        return await self._existing(tenant, "down", lambda s: change.stop(s, self._world.clock()), expect)

    async def restart(self, tenant: str, expect: Expect = ANY) -> Changed:
        """Restart its server."""
        return await self._existing(tenant, "restart", lambda s: change.restart(s, self._world.clock()), expect)

    async def purge(self, tenant: str, expect: Expect = ANY, *, at_once: bool) -> Changed:
        """Want it gone."""
        now = self._world.clock
        return await self._existing(tenant, "purge", lambda s: change.purge(s, now(), at_once=at_once), expect)

    async def restore(self, tenant: str, ask: Restore, node: str | None, expect: Expect = ANY) -> Changed:
        """Bring it back to a moment, in place."""
        now = self._world.clock
        return await self._existing(tenant, "restore", lambda s: change.restore(s, ask, node, now()), expect)

    async def fork(self, source: str, target: str, ask: Restore, node: str | None) -> Changed:
        """Make a new tenant from a moment of another one, with its spec and secrets."""
        origin = self.find(source)
        if origin.want == "purged":
            raise Conflict(f"{source} is purged: its data can't be restored any more", tenant=source)
        existing = await self._current(target)
        if existing is not None and not gone(existing):
            if existing.restore == ask:
                return Changed(existing, existing, made=False)
            raise Conflict(f"{target} exists already; restore {source} as a name that is free", tenant=target)
        refs = await self._vault.copy(source, target, origin.spec)
        if origin.spec.access == "token":
            await self._vault.access_token(target, make=True)
        spec = origin.spec.model_copy(update={"secrets": refs, "node": node or origin.spec.node})

        def decide(now: Spec | None) -> Spec | None:
            if now is not None and not gone(now):
                if now.restore == ask:
                    return None
                raise Refused(f"{target} exists already; restore {source} as a name that is free")
            return change.put(now, target, spec, self._world.clock(), restore=ask)

        return await self.change(target, decide, "restore")

    async def change(self, tenant: str, decide: Decide, kind: str, *, expect: Expect = ANY) -> Changed:
        """Read, decide, compare-and-swap; decide again on what is there if somebody was faster. Raises FleetError."""
        key = keys.spec(tenant)
        for _ in range(_ATTEMPTS):
            current, decided = await self._decide(tenant, decide, expect)
            if decided is None:
                if current is None:
                    raise not_found(tenant)
                return Changed(current, current, made=False)
            record = decided.model_copy(update={"nonce": new_nonce()})
            try:
                with translated(tenant, writes=True):
                    held = await self._bucket.write(key, record, self._world.etags.get(key) if current else None)
            except FleetError as e:
                if isinstance(e, OutcomeUnknown):
                    self._world.doubt_until = time.monotonic() + DOUBT_S
                if not isinstance(e.__cause__, Lost):
                    raise
                await self._reread(tenant)
                continue
            return self._made(key, held, current, kind)
        raise Conflict(f"the spec of {tenant} keeps changing; try again", tenant=tenant)

    async def _decide(self, tenant: str, decide: Decide, expect: Expect) -> tuple[Spec | None, Spec | None]:
        """The spec and what becomes of it. A change of what is known is tried by its compare-and-swap; that there is
        nothing to change, or that it can't be, is said of what is in the bucket now: another controller writes too."""
        for fresh in (False, True):
            if fresh:
                await self._reread(tenant)
            current = await self._current(tenant)
            try:
                expect.check(tenant, current)
                with _refusals(tenant):
                    decided = decide(current)
            except FleetError:
                if fresh:
                    raise
                continue
            if decided is not None:
                break
        return current, decided

    def _made(self, key: str, held: Held[Spec], old: Spec | None, kind: str) -> Changed:
        new = held.record
        before = old if old is not None and not gone(old) else None
        if old is None or new.generation != old.generation:
            text = f"{kind} of {new.tenant} asked for: generation {new.generation}"
            self._events.emit("applied", text, tenant=new.tenant, generation=new.generation, reason=kind)
        self._world.set_spec(key, held, written=True)
        self._written()
        return Changed(new, before, made=True)

    async def _existing(self, tenant: str, kind: str, decide: Callable[[Spec], Spec | None], expect: Expect) -> Changed:
        def checked(current: Spec | None) -> Spec | None:
            if current is None or gone(current):
                raise not_found(tenant)
            return decide(current)

        return await self.change(tenant, checked, kind, expect=expect)

    async def _current(self, tenant: str) -> Spec | None:
        """What is known. Before everything is, it is read; after that, a create that another controller was faster
        with is noticed by its compare-and-swap."""
        if tenant not in self._world.specs and not self._world.loaded:
            await self._reread(tenant)
        return self._world.specs.get(tenant)

    async def _reread(self, tenant: str) -> None:
        key = keys.spec(tenant)
        with translated(tenant):
            held = await self._bucket.read(key, Spec)
        if held is not None:
            self._world.set_spec(key, held, written=True)

    async def _app_exists(self, tenant: str, spec: TenantSpec) -> None:
        if spec.app is not None and await self._shelf.use(spec.app) is None:
            raise Invalid(f"the app {spec.app} is not in the bucket; upload it first", tenant=tenant, field="spec.app")


@contextlib.contextmanager
def _refusals(tenant: str) -> Iterator[None]:
    """Turns a refusal of the core into an answer of the API."""
    try:
        yield
    except Refused as e:
        answer = Invalid if e.bad_input else Conflict
        raise answer(str(e), tenant=tenant, field=e.field) from None


def not_found(tenant: str) -> NotFound:
    """There is no such tenant."""
    return NotFound(f"there is no tenant {tenant}; `fleet up {tenant} --app DIR` makes one", tenant=tenant)
