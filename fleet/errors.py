"""One error tree: what happened to which tenant and what to do, with its HTTP status, exit code and retryability."""

from __future__ import annotations

from node.api import Problem


class FleetError(Exception):
    """Base. `type` ends `urn:fleet:…`, `exit_code` is the command line's; `retryable`: the same call may work later."""

    type = "error"
    title = "The controller failed"
    status = 500
    exit_code = 1
    retryable = False

    def __init__(self, message: str, *, tenant: str | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.tenant = tenant
        self.field = field

    def problem(self) -> Problem:
        """The RFC 9457 document of this error."""
        return Problem(
            type=f"urn:fleet:{self.type}",
            title=self.title,
            status=self.status,
            detail=str(self),
            tenant=self.tenant,
            field=self.field,
            retryable=self.retryable,
        )


class Invalid(FleetError):
    """The request is not what the API accepts; `field` names where."""

    type, title, status, exit_code = "invalid", "Bad input", 422, 2


class Unauthorized(FleetError):
    """No token, or one that is not known."""

    type, title, status, exit_code = "unauthorized", "A bearer token is needed", 401, 2


class Forbidden(FleetError):
    """The token may read only."""

    type, title, status, exit_code = "forbidden", "This token may only read", 403, 2


class NotFound(FleetError):
    """No such tenant, app or path."""

    type, title, status, exit_code = "not_found", "No such thing", 404, 3


class Conflict(FleetError):
    """The tenant is in a state, or changed meanwhile, so that this cannot be done."""

    type, title, status, exit_code = "conflict", "Not possible now", 409, 5


class Stale(FleetError):
    """`If-Match` or `If-None-Match` did not hold."""

    type, title, status, exit_code = "stale", "Changed meanwhile", 412, 5


class TooLarge(FleetError):
    """A body over its bound."""

    type, title, status, exit_code = "too_large", "The body is too large", 413, 2


class Unavailable(FleetError):
    """The bucket or a node does not answer; nothing was changed."""

    type, title, status, exit_code, retryable = "unavailable", "Not available now", 503, 6, True


class OutcomeUnknown(FleetError):
    """The bucket did not say whether a write was applied. Repeating the call is safe and finds out."""

    type, title, status, exit_code, retryable = "outcome_unknown", "The outcome is not known yet", 504, 4, True
