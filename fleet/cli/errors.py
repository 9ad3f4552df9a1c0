"""How a command ends when it is not done: one paragraph for a person, one exit code for a program."""

from __future__ import annotations

from typing import Any

FAILED, USAGE, MISSING, UNKNOWN, CONFLICT, UNAVAILABLE = 1, 2, 3, 4, 5, 6

# What a problem is called that arises here, by exit code: as the API calls it.
_KINDS = ("", "error", "invalid", "not_found", "outcome_unknown", "conflict", "unavailable")

# The last resort where a problem's `type` says nothing: by HTTP status.
_BY_STATUS = {400: 2, 401: 2, 403: 2, 404: 3, 405: 2, 409: 5, 412: 5, 413: 2, 422: 2, 502: 6, 503: 6, 504: 4}


class CliError(Exception):
    """`problem` is the RFC 9457 document, where there is one, for `-o json`."""

    def __init__(self, message: str, code: int = FAILED, problem: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        kind = _KINDS[code]
        self.problem = problem or {
            "type": f"urn:fleet:{kind}",
            "title": kind,
            "detail": message,
            "retryable": code in (UNKNOWN, UNAVAILABLE),
        }


def of_problem(status: int, problem: dict[str, Any], who: str = "the controller") -> CliError:
    """The error that an answer of the API means."""
    text = str(problem.get("detail") or problem.get("title") or f"{who} answered {status}")
    tenant, field = problem.get("tenant"), problem.get("field")
    if field and field not in text:
        text = f"{field}: {text}"
    if tenant and tenant not in text:
        text = f"{tenant}: {text}"
    return CliError(text, _BY_STATUS.get(status, FAILED), problem)
