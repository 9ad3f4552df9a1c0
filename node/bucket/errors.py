"""What can go wrong at the bucket. Library errors are translated to these at the adapter and never cross it."""

from __future__ import annotations


class BucketError(Exception):
    """Base. `retryable` says whether the same call may succeed later; `code` is the metric label."""

    retryable = False
    code = "error"

    def __init__(self, message: str, *, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class Missing(BucketError):
    """No object under this key."""

    code = "missing"


class Conflict(BucketError):
    """The condition did not hold: somebody else's record is there. Definite."""

    code = "conflict"


class Busy(BucketError):
    """The store answered 409 or a throttle: nothing was applied, try again."""

    retryable = True
    code = "busy"


class Ambiguous(BucketError):
    """No answer, or a 5xx: the request may or may not have been applied, now or later. Not done, not failed."""

    retryable = True
    code = "ambiguous"


class Denied(BucketError):
    """The store refused the credentials, or they do not permit this call."""

    code = "denied"


class NoBucket(BucketError):
    """The bucket itself does not exist."""

    code = "no_bucket"


class Unsupported(BucketError):
    """The store does not offer what ownership rests on: conditional writes, consistent reads and lists."""

    code = "unsupported"


class BadRecord(BucketError):
    """The object under a key is not a record that this version can read: bad JSON, wrong type, unknown format."""

    code = "bad_record"
