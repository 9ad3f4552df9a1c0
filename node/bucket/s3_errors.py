"""What an S3 answer, or the lack of one, means: one table from status and code to this package's errors."""

from __future__ import annotations

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)
from urllib3.exceptions import HTTPError

from node.bucket.errors import Ambiguous, BucketError, Busy, Conflict, Denied, Missing, NoBucket, Unsupported

FAILURES = (BotoCoreError, ClientError, HTTPError)  # an OSError is the local file's: it is the caller's

_BY_CODE: dict[str, type[BucketError]] = {
    "PreconditionFailed": Conflict,
    "ConditionalRequestConflict": Busy,
    "OperationAborted": Busy,
    "SlowDown": Busy,
    "SlowDownRead": Busy,
    "SlowDownWrite": Busy,
    "TooManyRequests": Busy,
    "Throttling": Busy,
    "ThrottlingException": Busy,
    "RequestLimitExceeded": Busy,
    "NoSuchBucket": NoBucket,
    "InvalidBucketName": NoBucket,
    "PermanentRedirect": NoBucket,
    "AuthorizationHeaderMalformed": Denied,
    "AccessDenied": Denied,
    "ExpiredToken": Denied,
    "InvalidToken": Denied,
    "InvalidAccessKeyId": Denied,
    "SignatureDoesNotMatch": Denied,
    "RequestTimeTooSkewed": Denied,
    "NotImplemented": Unsupported,
    "RequestTimeout": Ambiguous,
}
_BY_STATUS: dict[int, type[BucketError]] = {
    301: NoBucket,
    307: Ambiguous,
    401: Denied,
    403: Denied,
    404: Missing,
    408: Ambiguous,
    409: Busy,
    412: Conflict,
    429: Busy,
    501: Unsupported,
}
_HINTS = {
    "RequestTimeTooSkewed": "this machine's clock is too far off the store's: set it right",
    "PermanentRedirect": "the bucket is in another region: set FLEET_S3_REGION",
    "AuthorizationHeaderMalformed": "the region may be wrong: check FLEET_S3_REGION",
    "NoSuchBucket": "create the bucket, or correct FLEET_BUCKET",
}
_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, TokenRetrievalError)


def translated_code(code: str, status: int, message: str, key: str) -> BucketError:
    """The error for an S3 error code and an HTTP status (0 if there is none). Everything unknown is ambiguous,
    except a definite refusal (4xx)."""
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if kind is None:
        kind = BucketError if 400 <= status < 500 else Ambiguous
    hint = _HINTS.get(code)
    return kind(f"{message}; {hint}" if hint else message, key=key)


def translate(error: Exception, operation: str, key: str, where: str) -> BucketError:
    """The error for what boto3 raised in a call on `key`. No answer at all is Ambiguous, whatever the library calls it:
    a pooled connection does not tell what had been sent."""
    what = f"{operation} {key} in {where}"
    if isinstance(error, ClientError):
        details = error.response.get("Error", {})
        code = str(details.get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return translated_code(code, status, f"{what}: the store answered {status} {code}", key)
    if isinstance(error, _NO_CREDENTIALS):
        return Denied(f"{what}: no usable credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", key=key)
    return Ambiguous(f"{what}: no answer: {error}", key=key)
