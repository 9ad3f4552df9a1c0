"""What custody says when it cannot do what was asked. One tree; each error names the tenant and what to do next."""

from __future__ import annotations

from dataclasses import dataclass


class CustodyError(Exception):
    """Base. `reason` is one token (a report's `reason`), `retryable` whether the same call may succeed later."""

    retryable = False
    reason = "failed"

    def __init__(self, tenant: str, message: str) -> None:
        super().__init__(message)
        self.tenant = tenant


class Refused(CustodyError):
    """Custody may not or cannot take this tenant now; nothing was changed that needs undoing."""

    def __init__(self, tenant: str, message: str, *, reason: str, retryable: bool) -> None:
        super().__init__(tenant, message)
        self.reason = reason
        self.retryable = retryable


class OwnedElsewhere(CustodyError):
    """The owner record names another node or session. What runs here under this tenant's name must stop."""

    retryable = True
    reason = "owned_elsewhere"

    def __init__(self, tenant: str, message: str, *, node: str, epoch: int) -> None:
        super().__init__(tenant, message)
        self.node = node
        self.epoch = epoch


@dataclass(frozen=True, slots=True)
class Restorable:
    """What can be had instead: every file's txid in `epoch` of `tenant`, as of `at` (unix seconds, None: unknown)."""

    tenant: str
    epoch: int
    at: float | None
    files: dict[str, str]


class Lost(CustodyError):
    """The tenant has data and none of it can be restored. It stays down until the loss is accepted."""

    reason = "lost"


class Damaged(CustodyError):
    """The newest state cannot be restored, an earlier one can (`instead`). Down until that is accepted."""

    reason = "damaged"

    def __init__(self, tenant: str, message: str, *, instead: Restorable) -> None:
        super().__init__(tenant, message)
        self.instead = instead


class Unconfirmed(CustodyError):
    """Not known to be in the bucket: neither done nor failed. `behind` says per file how many transactions are not."""

    retryable = True
    reason = "unconfirmed"

    def __init__(self, tenant: str, message: str, *, behind: dict[str, int] | None = None) -> None:
        super().__init__(tenant, message)
        self.behind = behind or {}


class SidecarFailed(CustodyError):
    """The sidecar did not start, or does not answer."""

    retryable = True
    reason = "sidecar"
