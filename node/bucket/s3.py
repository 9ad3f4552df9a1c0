"""The bucket over boto3. One call is one request: its retries are off, since what is ambiguous is `cas`'s to decide.

But a read is sent once more, at once, when a connection of before turns out to be closed: stores close idle ones.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ConnectionClosedError
from botocore.utils import parse_timestamp

from node.bucket.errors import BucketError, Denied
from node.bucket.s3_errors import FAILURES, translate, translated_code
from node.bucket.store import Entry, Object
from node.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2RequestTypeDef

PAGE = 1000
_CHUNK = 1 << 20
_session_lock = threading.Lock()

Observe = Callable[[str, float, str | None], None]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What signs requests; never printed. `token` is set for temporary credentials."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Location:
    """Where the fleet's objects are. `prefix` is empty or ends with a slash; `endpoint` None means AWS itself."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str = "us-east-1"

    @classmethod
    def of(cls, settings: Settings) -> Location:
        """From `FLEET_BUCKET` and its companions. Raises ValueError if no bucket is set."""
        if settings.bucket is None:
            raise ValueError("FLEET_BUCKET is not set")
        bucket, _, path = settings.bucket.removeprefix("s3://").partition("/")
        parts = [part for part in path.split("/") if part]
        prefix = "/".join(parts) + "/" if parts else ""
        return cls(bucket, prefix, settings.s3_endpoint, settings.s3_region)

    @property
    def path_style(self) -> bool:
        """Whether the bucket goes into the path: with an endpoint of one's own there is no name for each bucket."""
        return self.endpoint is not None

    def credentials(self) -> Credentials:
        """By the AWS chain (environment, files, instance). Raises Denied if there are none."""
        try:
            with _session_lock:
                found = boto3.session.Session().get_credentials()
            if found is None:
                raise Denied("no credentials for the bucket: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
            now = found.get_frozen_credentials()
        except BotoCoreError as e:
            raise Denied(f"the credentials for the bucket cannot be read: {e}") from e
        return Credentials(now.access_key or "", now.secret_key or "", now.token)

    def lasting_credentials(self) -> Credentials:
        """Those that a sidecar can be given, for as long as it runs. Raises Denied for temporary ones: Litestream takes
        no session token, and could not renew it."""
        found = self.credentials()
        if found.token:
            raise Denied(
                "the credentials for the bucket are temporary (they come with a session token), and Litestream takes "
                "none: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to a user's keys"
            )
        return found

    def __str__(self) -> str:
        where = f" at {self.endpoint}" if self.endpoint else ""
        return f"s3://{self.bucket}/{self.prefix}{where}"


class S3Store:
    """A Store on any S3-compatible service.

    Timeouts are seconds: to connect, and without a byte of the answer. `observe(operation, seconds, code)` is called
    after every request, `code` None if it succeeded, else the error's. Without `credentials` the AWS chain is asked,
    and asked again as they expire.
    """

    def __init__(
        self,
        location: Location,
        *,
        connect_timeout_s: float = 3.0,
        read_timeout_s: float = 10.0,
        connections: int = 32,
        credentials: Credentials | None = None,
        observe: Observe | None = None,
    ) -> None:
        self.location = location
        self._observe = observe
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=connect_timeout_s,
            read_timeout=read_timeout_s,
            max_pool_connections=connections,
            signature_version="s3v4",
            s3={"addressing_style": "path" if location.path_style else "auto"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            tcp_keepalive=True,
        )
        with _session_lock:  # a session is not safe from many threads; the client that it makes is
            self._client: S3Client = _session().client(
                "s3",
                endpoint_url=location.endpoint,
                region_name=location.region,
                config=config,
                aws_access_key_id=credentials.access_key if credentials else None,
                aws_secret_access_key=credentials.secret_key if credentials else None,
                aws_session_token=credentials.token if credentials else None,
            )

        for operation in ("GetObject", "HeadObject", "ListObjectsV2"):
            self._client.meta.events.register(f"needs-retry.s3.{operation}", _once_more)  # type: ignore[arg-type] # this event is answered

    def close(self) -> None:
        """Drop the pooled connections."""
        self._client.close()

    def get(self, key: str) -> Object:
        """Read an object. Raises Missing."""
        with self._call("get", key):
            answer = self._client.get_object(Bucket=self.location.bucket, Key=self._full(key))
            body = answer["Body"].read()
            return Object(key, _etag(answer["ETag"]), body, _store_time(answer["ResponseMetadata"]))

    def create(self, key: str, body: bytes) -> str:
        """Write if there is none; answers the ETag. Raises Conflict."""
        with self._call("create", key):
            answer = self._client.put_object(
                Bucket=self.location.bucket, Key=self._full(key), Body=body, IfNoneMatch="*"
            )
            return _etag(answer["ETag"])

    def replace(self, key: str, body: bytes, etag: str) -> str:
        """Write if the object still has this ETag; answers the new one. Raises Conflict, Missing."""
        with self._call("replace", key):
            answer = self._client.put_object(
                Bucket=self.location.bucket, Key=self._full(key), Body=body, IfMatch=f'"{etag}"'
            )
            return _etag(answer["ETag"])

    def put_file(self, key: str, path: Path) -> None:
        """Write a file unconditionally, in one request: up to 5 GiB."""
        with path.open("rb") as body, self._call("put_file", key):
            self._client.put_object(Bucket=self.location.bucket, Key=self._full(key), Body=body)

    def get_file(self, key: str, path: Path) -> None:
        """Stream an object to a new file, removed again if it fails. Raises Missing, FileExistsError."""
        with path.open("xb") as out:
            try:
                with self._call("get_file", key):
                    answer = self._client.get_object(Bucket=self.location.bucket, Key=self._full(key))
                    for chunk in answer["Body"].iter_chunks(_CHUNK):
                        out.write(chunk)
            except BaseException:
                with suppress(OSError):
                    path.unlink()
                raise

    def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> Iterator[Entry]:
        """Objects under a prefix in key order, a thousand a request; raises on the page that fails."""
        ask: ListObjectsV2RequestTypeDef = {"Bucket": self.location.bucket, "Prefix": self._full(prefix)}
        if start_after:
            ask["StartAfter"] = self._full(start_after)
        left = limit
        while left is None or left > 0:
            ask["MaxKeys"] = PAGE if left is None else min(PAGE, left)
            with self._call("list", prefix):
                answer = self._client.list_objects_v2(**ask)
            page = [self._entry(item) for item in answer.get("Contents", ())]
            yield from page
            if not answer["IsTruncated"]:
                return
            ask["ContinuationToken"] = answer["NextContinuationToken"]
            left = None if left is None else left - len(page)

    def head(self, key: str) -> tuple[Entry, dict[str, str]]:
        """An object's entry and its user metadata (lower-case names). Raises Missing."""
        with self._call("head", key):
            answer = self._client.head_object(Bucket=self.location.bucket, Key=self._full(key))
        entry = Entry(key, _etag(answer["ETag"]), answer["ContentLength"], answer["LastModified"].timestamp())
        return entry, {name.lower(): value for name, value in answer["Metadata"].items()}

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, a thousand a request; a missing one is fine. Raises for the first that was refused."""
        left = iter(keys)
        while batch := tuple(islice(left, PAGE)):
            self._delete(batch)

    def _delete(self, batch: Sequence[str]) -> None:
        with self._call("delete", batch[0]):
            answer = self._client.delete_objects(
                Bucket=self.location.bucket,
                Delete={"Objects": [{"Key": self._full(key)} for key in batch], "Quiet": True},
            )
            for refused in answer.get("Errors", ()):
                code = refused.get("Code", "")
                if code not in ("NoSuchKey", "NoSuchVersion"):
                    key = refused.get("Key", "").removeprefix(self.location.prefix)
                    raise translated_code(code, 0, f"delete {key}: {refused.get('Message') or code}", key)

    def _entry(self, item: Any) -> Entry:
        key = item["Key"].removeprefix(self.location.prefix)
        return Entry(key, _etag(item["ETag"]), item["Size"], item["LastModified"].timestamp())

    def _full(self, key: str) -> str:
        return self.location.prefix + key

    @contextmanager
    def _call(self, operation: str, key: str) -> Iterator[None]:
        """Translate what the library raises, and report the request."""
        began = time.monotonic()
        code: str | None = None
        try:
            yield
        except BucketError as e:
            code = e.code
            raise
        except FAILURES as e:
            error = translate(e, operation, key, str(self.location))
            code = error.code
            raise error from e
        finally:
            if self._observe is not None:
                self._observe(operation, time.monotonic() - began, code)


def _once_more(attempts: int, caught_exception: Exception | None, **_: Any) -> float | None:
    """Seconds to wait before a read is sent again; None: it is not."""
    return 0.0 if attempts == 1 and isinstance(caught_exception, ConnectionClosedError) else None


@lru_cache(maxsize=1)
def _session() -> boto3.session.Session:
    """One a process: it reads the description of the service, which takes long, only once."""
    core = botocore.session.get_session()
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
    return boto3.session.Session(botocore_session=core)


def _moment(text: Any) -> datetime:
    """A time in an answer. The library's own way of reading one is most of what a LIST of a thousand costs."""
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        with suppress(ValueError, TypeError, AttributeError):
            found = read(text)
            return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return parse_timestamp(text)


def _etag(quoted: str) -> str:
    return quoted.strip('"')


def _store_time(metadata: Any) -> float | None:
    date = metadata["HTTPHeaders"].get("date")
    try:
        return parsedate_to_datetime(date).timestamp() if date else None
    except ValueError:
        return None
