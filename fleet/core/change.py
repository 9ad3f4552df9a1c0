"""Changes of what should be: from the stored spec and what is asked to the next one. Pure; `now` is unix time.

Each answers None when there is nothing to change: the same request again makes no new generation. A nonce is put in by
whoever writes the record.
"""

from __future__ import annotations

from typing import Any

from node.bucket.records import Restore, Spec
from node.bucket.spec import TenantSpec

# How long the data of a purged tenant is kept unless it is asked to go at once.
PURGE_DELAY_S = 24 * 3600.0
# What the agent can change under a running server.
_NO_RESTART = frozenset({"labels", "retention", "node", "access", "metrics"})


class Refused(Exception):
    """The change cannot be made to this tenant as it is: a sentence that says what to do; `field` names the cause."""

    def __init__(self, message: str, *, field: str | None = None, bad_input: bool = False) -> None:
        super().__init__(message)
        self.field = field
        self.bad_input = bad_input


def proven_spec(current: Spec) -> TenantSpec | None:
    """The last spec that got healthy."""
    return current.spec if current.proven == current.generation else current.previous


def next_of(current: Spec, now: float, **changes: Any) -> Spec:
    """The next generation of a spec, with these fields changed and no nonce yet."""
    update = {
        "generation": current.generation + 1,
        "nonce": "",
        "previous": proven_spec(current),
        "rolled_back": 0,
        "updated_at": now,
        **changes,
    }
    return current.model_copy(update=update)


def put(current: Spec | None, tenant: str, spec: TenantSpec, now: float, restore: Restore | None = None) -> Spec | None:
    """Want this tenant up with this spec. Raises Refused when its database files differ or it is being purged."""
    if current is None:
        return Spec(
            nonce="", tenant=tenant, generation=1, want="up", spec=spec, restore=restore, created_at=now, updated_at=now
        )
    if current.want == "purged":
        _purge_must_be_done(current)
        return next_of(
            current, now, want="up", spec=spec, restore=restore, previous=None, proven=0, restarts=0, created_at=now
        )
    if spec.databases != current.spec.databases:
        was = ", ".join(current.spec.databases)
        raise Refused(
            f"the database files of {tenant} are {was} and can't change: its data is replicated by file. "
            "Give it another name, or purge it first",
            field="spec.databases",
            bad_input=True,
        )
    if current.want == "up" and spec == current.spec:
        return None
    return next_of(current, now, want="up", spec=spec)


def stop(current: Spec, now: float) -> Spec | None:
    """Want the tenant down."""
    _not_purged(current)
    return None if current.want == "down" else next_of(current, now, want="down")


def restart(current: Spec, now: float) -> Spec:
    """Restart the server of a tenant that is wanted up. Each call is one restart."""
    _not_purged(current)
    if current.want != "up":
        raise Refused(f"{current.tenant} is down; `fleet up {current.tenant}` brings it up")
    return next_of(current, now, restarts=current.restarts + 1)


def restore(current: Spec, ask: Restore, node: str | None, now: float) -> Spec | None:
    """Bring a tenant back to a moment, in place; once for each request id."""
    if current.want == "purged":
        raise Refused(f"{current.tenant} is purged: its data can't be restored any more")
    if current.restore is not None and current.restore.id == ask.id:
        if current.restore != ask:
            raise Refused(f"the restore {ask.id} of {current.tenant} was asked for with other values", field="id")
        return None
    spec = current.spec if node is None else current.spec.model_copy(update={"node": node})
    return next_of(current, now, want="up", spec=spec, restore=ask)


def purge(current: Spec, now: float, *, at_once: bool) -> Spec | None:
    """Take the tenant down for good; its data may be deleted in 24 hours, or at once."""
    due = now if at_once else now + PURGE_DELAY_S
    if current.want == "purged":
        if current.purge_after is None or current.purge_after <= due:
            return None
        return next_of(current, now, purge_after=due, previous=None)
    return next_of(current, now, want="purged", purge_after=due, previous=None)


def purge_done(current: Spec) -> Spec:
    """Nothing of it is left. Not a new generation: nothing else is wanted."""
    return current.model_copy(update={"purge_after": None, "nonce": ""})


def proven(current: Spec) -> Spec:
    """This generation got healthy. Not a new generation."""
    return current.model_copy(update={"proven": current.generation, "previous": None, "nonce": ""})


def rolled_back(current: Spec, now: float) -> Spec:
    """Want the last proven spec again, as this generation was given up for it."""
    spec = current.previous or current.spec
    return next_of(current, now, spec=spec, previous=None, rolled_back=current.generation)


def differences(old: TenantSpec | None, new: TenantSpec) -> list[tuple[str, object, object]]:
    """(dotted path, old, new) of each value that differs, by path; old None where the tenant is new."""
    before = _flat(old.model_dump(mode="json")) if old is not None else {}
    after = _flat(new.model_dump(mode="json"))
    if old is None:
        after = {path: value for path, value in after.items() if value not in (None, [], {})}
    paths = sorted(before.keys() | after.keys())
    return [(p, before.get(p), after.get(p)) for p in paths if before.get(p) != after.get(p)]


def restarts(old: TenantSpec | None, new: TenantSpec) -> bool:
    """Whether this change restarts a server that runs."""
    return old is not None and any(path.split(".")[0] not in _NO_RESTART for path, _, _ in differences(old, new))


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, item in value.items():
        path = f"{prefix}{key}"
        if isinstance(item, dict) and item:
            flat.update(_flat(item, f"{path}."))
        elif item != {}:
            flat[path] = item
    return flat


def _not_purged(current: Spec) -> None:
    if current.want == "purged":
        raise Refused(f"{current.tenant} is purged; give --app or --image to make it anew")


def _purge_must_be_done(current: Spec) -> None:
    if current.purge_after is not None:
        raise Refused(
            f"{current.tenant} is being purged and its data is not deleted yet; "
            f"`fleet down {current.tenant} --purge --now` deletes it at once, after that it can be made anew"
        )
