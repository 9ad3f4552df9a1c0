"""What the gateway answers by itself: problem documents as HAProxy's configuration has them. Pure."""

from __future__ import annotations

import json

TYPE = "application/problem+json"
TENANT = "%[var(txn.tenant),bytes(0,63),json(utf8s)]"


def document(status: int, kind: str, title: str, detail: str, *, retryable: bool, tenant: str | None) -> str:
    """A problem document (RFC 9457) as JSON."""
    content: dict[str, object] = {"type": f"urn:fleet:{kind}", "title": title, "status": status}
    content |= {"detail": detail, "retryable": retryable}
    if tenant is not None:
        content["tenant"] = tenant
    return json.dumps(content)


def problem(status: int, kind: str, title: str, detail: str, *, retryable: bool, reason: str | None = None) -> str:
    """A problem document as the arguments of HAProxy's `http-error` and `http-request return`.

    `detail` may name `{tenant}`; `reason` is a log-format expression.
    """
    text = document(status, kind, title, detail.replace("{tenant}", "@@"), retryable=retryable, tenant="@@")
    if reason is not None:
        text = text.removesuffix("}") + f', "reason": "{reason}"}}'
    headers = ' hdr Retry-After "1"' if retryable else ""
    headers += ' hdr WWW-Authenticate "Bearer realm=\\"%[var(txn.tenant)]\\""' if status == 401 else ""
    return f"status {status} content-type {TYPE} lf-string '{text.replace('@@', TENANT)}'{headers}"


def not_ready(reason: str) -> str:
    """503 for a tenant that is not up; `reason` is the expression that says why."""
    said = f"%[{reason}]"
    return problem(503, "not_ready", "Not ready", f"tenant {{tenant}} is not up: {said}", retryable=True, reason=said)
