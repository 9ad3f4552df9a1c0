"""Real object stores on loopback, in a folder of their own: MinIO and SeaweedFS."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from node.bucket.s3 import Credentials, Location, S3Store
from tests.testbed.process import Process, answers, free_ports

REGION = "us-east-1"


def cache() -> Path:
    """Where built programs and images of tests are kept between runs."""
    return Path(os.environ.get("TESTS_CACHE") or Path.home() / ".cache" / "fleet-tests")


def minio_binary() -> Path | None:
    """The MinIO that `./tests/run` built, None if it is not there."""
    path = cache() / "bin" / "minio"
    return path if path.exists() else None


@dataclass(frozen=True)
class StoreServer:
    """A running store. Stop, start and pause it through `process`; its port and its data stay the same."""

    name: str
    process: Process
    endpoint: str
    credentials: Credentials
    ready: Callable[[], bool]

    def start(self) -> None:
        """Start it (again) and wait until it answers."""
        self.process.start(self.ready)

    def stop(self) -> None:
        """Stop it: connections are refused from then on."""
        self.process.stop()

    def pause(self) -> None:
        """It accepts connections and never answers, until `resume`."""
        self.process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It answers again, also what arrived during the pause."""
        self.process.signal(signal.SIGCONT)

    @cached_property
    def client(self) -> Any:
        """A plain boto3 client: the test's own hand in the store."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.credentials.access_key,
            aws_secret_access_key=self.credentials.secret_key,
            config=Config(s3={"addressing_style": "path"}),
        )

    def new_bucket(self) -> str:
        """Create a bucket of a fresh name."""
        name = f"test-{secrets.token_hex(6)}"
        self.client.create_bucket(Bucket=name)
        return name

    def location(self, bucket: str, prefix: str = "") -> Location:
        """A place in it."""
        return Location(bucket, prefix, self.endpoint, REGION)

    def store(self, bucket: str, prefix: str = "", **options: Any) -> S3Store:
        """The product's own adapter on a place in it."""
        return S3Store(self.location(bucket, prefix), credentials=self.credentials, **options)

    def environment(self, bucket: str, prefix: str = "") -> dict[str, str]:
        """What a process of the fleet needs to use it."""
        return {
            "FLEET_BUCKET": f"s3://{bucket}/{prefix}".rstrip("/"),
            "FLEET_S3_ENDPOINT": self.endpoint,
            "FLEET_S3_REGION": REGION,
            "AWS_ACCESS_KEY_ID": self.credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": self.credentials.secret_key,
        }


@contextmanager
def running_minio(folder: Path, binary: Path, *, everywhere: bool = False) -> Iterator[StoreServer]:
    """A MinIO with its data under `folder`, ended and its data removed at the end. `everywhere`: on every address of
    this network, which is the run's own, not on loopback alone."""
    port, console = free_ports(2)
    credentials = Credentials("minio-test", secrets.token_hex(16))
    data = folder / "minio"
    data.mkdir(parents=True)
    process = Process(
        [
            binary,
            "server",
            data,
            "--address",
            f"{'' if everywhere else '127.0.0.1'}:{port}",
            "--console-address",
            f"127.0.0.1:{console}",
        ],
        log=folder / "minio.log",
        environment={
            "MINIO_ROOT_USER": credentials.access_key,
            "MINIO_ROOT_PASSWORD": credentials.secret_key,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
        },
        cwd=folder,
    )
    ready = answers(port, "/minio/health/live", 200)
    yield from _serve(StoreServer("minio", process, f"http://127.0.0.1:{port}", credentials, ready), data)


@contextmanager
def running_seaweedfs(folder: Path) -> Iterator[StoreServer]:
    """A SeaweedFS with its data under `folder`, every port of its own on loopback."""
    data = folder / "weed"
    data.mkdir(parents=True)
    credentials = Credentials("weed-test", secrets.token_hex(16))
    names = ("master", "volume", "filer", "s3")
    ports = free_ports(2 * len(names))
    listen = [
        f"-{name}.port{kind}={ports[2 * i + j]}" for i, name in enumerate(names) for j, kind in enumerate(("", ".grpc"))
    ]
    port = ports[2 * names.index("s3")]
    process = Process(
        [
            Path(sys.executable).with_name("weed"),
            "mini",
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            *listen,
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-filer.localSocket={folder}/filer.sock",
            f"-s3.localSocket={folder}/s3.sock",
            "-s3.autoCreateBucket=false",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
        ],
        log=folder / "weed.log",
        environment={
            "AWS_ACCESS_KEY_ID": credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
        },
        cwd=folder,
    )
    ready = answers(port, "/healthz", 200)
    yield from _serve(StoreServer("seaweedfs", process, f"http://127.0.0.1:{port}", credentials, ready), data)


def _serve(server: StoreServer, data: Path) -> Iterator[StoreServer]:
    try:
        server.start()
        yield server
    finally:
        server.process.kill()  # its data goes with it: no need to wait for an orderly end
        shutil.rmtree(data, ignore_errors=True)
