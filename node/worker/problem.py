"""Problem documents (RFC 9457): the one shape of every error that the worker answers with."""

from __future__ import annotations

import json

CONTENT_TYPE = "application/problem+json"

TITLES = {
    400: "Malformed request",
    404: "Not found",
    405: "Method not allowed",
    408: "Request too slow",
    409: "Conflict",
    413: "Body too large",
    415: "Unsupported media type",
    422: "Invalid input",
    429: "Too many requests",
    500: "Internal error",
    503: "Not ready",
    507: "Out of space",
}


class Problem(Exception):
    """An error with the answer it deserves; a tenant's routes may raise it as well.

    status: the HTTP status. kind: a token that programs can match, the tail of `type`. detail: what happened and what
    to do next. field: the part of the input that is wrong, if one is. retryable: whether the same request may succeed
    later. headers: further response headers.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        field: str | None = None,
        retryable: bool = False,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.field = field
        self.retryable = retryable
        self.headers = headers

    def document(self) -> dict[str, object]:
        """The problem as JSON: type, title, status, detail, retryable and, where one is to blame, field."""
        document: dict[str, object] = {
            "type": f"urn:tenantry:problem:{self.kind}",
            "title": TITLES.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail,
            "retryable": self.retryable,
        }
        if self.field is not None:
            document["field"] = self.field
        return document

    def body(self) -> bytes:
        """The document, encoded."""
        return json.dumps(self.document()).encode()


INTERNAL = Problem(500, "internal", "the server failed to answer; its log says why")


def invalid(field: str, detail: str) -> Problem:
    """422 naming the field that is wrong."""
    return Problem(422, "invalid-input", f"{field}: {detail}", field=field)
