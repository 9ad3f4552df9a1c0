"""The embedded store: SeaweedFS on this machine's loopback, for trying things. It does not survive the machine.

Its filer serves every object without credentials, so nothing of it listens beyond loopback, where no tenant's worker
can reach it. Everything that is not needed is off.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from fleet.tokens import kept

BUCKET = "fleet"
HOST = "127.0.0.1"
_REGION = "us-east-1"
# Its ports are consecutive: S3 first, which is the setting, then the inner ones.
_PORTS = ("s3", "master", "volume", "filer", "admin")


@dataclass(frozen=True, slots=True)
class EmbeddedStore:
    """Where the store is and what it takes to use it. `port` is its S3 port, the nine above it are its inner ones."""

    folder: Path
    port: int
    access_key: str
    secret_key: str = field(repr=False)

    @property
    def endpoint(self) -> str:
        """Its S3 URL."""
        return f"http://{HOST}:{self.port}"

    @property
    def bucket(self) -> str:
        """The fleet's bucket in it, as `FLEET_BUCKET` names it."""
        return f"s3://{BUCKET}"

    def credentials(self) -> dict[str, str]:
        """What the AWS chain of a process needs to use it, and what tells the store who may."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}


def embedded(state_dir: Path, port: int) -> EmbeddedStore:
    """The store of this state folder; its credentials are made and kept there (0600). Raises OSError, ValueError."""
    text, _ = kept(state_dir / "store.json", _new_credentials)
    found = json.loads(text)
    return EmbeddedStore(state_dir / "store", port, str(found["access_key"]), str(found["secret_key"]))


def _new_credentials() -> str:
    return json.dumps({"access_key": f"fleet-{secrets.token_hex(6)}", "secret_key": secrets.token_urlsafe(32)})


def command(store: EmbeddedStore) -> list[str]:
    """The program and its arguments, none of them secret. Everything is bound to loopback."""
    ports = {name: store.port + i for i, name in enumerate(_PORTS)}
    inner = {name: store.port + len(_PORTS) + i for i, name in enumerate(_PORTS)}
    return [
        str(Path(sys.executable).with_name("weed")),
        "mini",
        f"-dir={store.folder / 'data'}",
        f"-ip={HOST}",
        f"-ip.bind={HOST}",
        *(f"-{name}.port={port}" for name, port in ports.items()),
        *(f"-{name}.port.grpc={port}" for name, port in inner.items()),
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.localSocket={store.folder / 's3.sock'}",
        f"-filer.localSocket={store.folder / 'filer.sock'}",
        "-s3.autoCreateBucket=false",
        "-s3.allowDeleteBucketNotEmpty=false",
        "-filer.disableDirListing",
        "-filer.exposeDirectoryData=false",
        "-webdav=false",
        "-admin.ui=false",
        "-master.telemetry=false",
    ]


def prepare(store: EmbeddedStore) -> None:
    """Make its folders. Raises OSError."""
    store.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (store.folder / "data").mkdir(exist_ok=True, mode=0o700)


def environment(store: EmbeddedStore, base: Mapping[str, str]) -> dict[str, str]:
    """The store's own environment: nothing of the fleet's, and the credentials that it will accept."""
    kept_names = ("PATH", "HOME", "LANG", "TMPDIR")
    return {**{n: base[n] for n in kept_names if n in base}, **store.credentials()}


def ready(store: EmbeddedStore) -> bool:
    """Whether it answers and the fleet's bucket is in it; makes the bucket."""
    if not _answers(store.port):
        return False
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=store.endpoint,
        region_name=_REGION,
        aws_access_key_id=store.access_key,
        aws_secret_access_key=store.secret_key,
        config=Config(
            s3={"addressing_style": "path"}, connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1}
        ),
    )
    try:
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
            client.create_bucket(Bucket=BUCKET)
        client.list_objects_v2(Bucket=BUCKET, MaxKeys=1)
    except (BotoCoreError, ClientError):
        return False
    finally:
        client.close()
    return True


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def log_of(store: EmbeddedStore) -> Path:
    """Where the store says what it does; begun anew at each of its starts."""
    return store.folder / "weed.log"


def is_used(state_dir: Path) -> bool:
    """Whether this state folder has an embedded store with data in it."""
    return os.path.isdir(state_dir / "store" / "data")  # noqa: PTH112 - a folder that may not be looked into is not ours
