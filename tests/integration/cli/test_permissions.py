"""The policy in deploy/production.md, which an operator copies: it is enough for the fleet, and no more than that."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from node.bucket import cas, keys
from node.bucket.errors import Denied
from node.bucket.probe import probe
from node.bucket.records import Leader
from node.bucket.s3 import Credentials, Location, S3Store
from tests.testbed.stores import REGION, StoreServer

PAGE = Path(__file__).resolve().parents[3] / "deploy" / "production.md"


def policy(bucket: str) -> str:
    (found,) = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert json.loads(found)["Version"] == "2012-10-17"
    return found.replace(":::my-fleet", f":::{bucket}")


@pytest.fixture
def allowed(minio: StoreServer, bucket: str) -> Credentials:
    """Credentials that may do what the policy says."""
    tokens = boto3.session.Session().client(
        "sts",
        endpoint_url=minio.endpoint,
        region_name=REGION,
        aws_access_key_id=minio.credentials.access_key,
        aws_secret_access_key=minio.credentials.secret_key,
    )
    answer = tokens.assume_role(RoleArn="arn:aws:iam::0:role/any", RoleSessionName="test", Policy=policy(bucket))[
        "Credentials"
    ]
    return Credentials(answer["AccessKeyId"], answer["SecretAccessKey"], answer["SessionToken"])


@pytest.fixture
def limited(minio: StoreServer, bucket: str, allowed: Credentials) -> Iterator[S3Store]:
    store = S3Store(minio.location(bucket, "prod/"), credentials=allowed)
    yield store
    store.close()


@pytest.mark.store
def test_it_is_enough_for_everything_that_is_asked_of_the_bucket(limited: S3Store, tmp_path: Path) -> None:
    probe(limited)
    record = Leader(nonce="n", controller="c", seq=1, ttl_s=15, url="")
    assert cas.read(limited, keys.LEADER, Leader) is None
    held = cas.write(limited, keys.LEADER, record, None, give_up=cas.backoff())
    cas.write(limited, keys.LEADER, record.model_copy(update={"nonce": "m"}), held.etag, give_up=cas.backoff())
    (tmp_path / "app").write_bytes(b"app")
    limited.put_file(keys.app("a" * 64), tmp_path / "app")
    limited.get_file(keys.app("a" * 64), tmp_path / "copy")
    assert limited.head(keys.app("a" * 64))[0].size_bytes == 3
    limited.delete([keys.app("a" * 64)])
    assert [entry.key for entry in limited.list("")] == [keys.LEADER]


@pytest.mark.store
def test_it_reaches_nothing_beside_the_fleet(allowed: Credentials, minio: StoreServer, bucket: str) -> None:
    minio.client.put_object(Bucket=bucket, Key="other/object", Body=b"somebody else's")
    beside = S3Store(minio.location(bucket, "other/"), credentials=allowed)
    elsewhere = S3Store(minio.location(minio.new_bucket()), credentials=allowed)
    for store in (beside, elsewhere):
        with pytest.raises(Denied):
            store.get("object")
        with pytest.raises(Denied):
            store.create("new", b"")
        with pytest.raises(Denied):
            store.delete(["object"])
        store.close()
    assert minio.client.get_object(Bucket=bucket, Key="other/object")["Body"].read() == b"somebody else's"


def test_temporary_credentials_are_refused_for_sidecars_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ACCESS_KEY_ID", "key"), ("SECRET_ACCESS_KEY", "secret"), ("SESSION_TOKEN", "token")):
        monkeypatch.setenv(f"AWS_{name}", value)
    with pytest.raises(Denied, match=r"temporary .* Litestream takes none: set AWS_ACCESS_KEY_ID"):
        Location("bucket").lasting_credentials()
    monkeypatch.delenv("AWS_SESSION_TOKEN")
    assert Location("bucket").lasting_credentials().access_key == "key"
