"""A fleet that can be reached from elsewhere: with TLS on all that listens, and not without."""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import json
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.e2e.box import ROOT, Box, running
from tests.testbed.engine import Engine
from tests.testbed.process import FLEET
from tests.testbed.stores import StoreServer

APPROVALS = ROOT / "tests/e2e/apps/approvals"


@dataclass(frozen=True)
class Papers:
    """A certificate for this machine's loopback, its key, and who signed it."""

    ca: Path
    cert: Path
    key: Path


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def issue(folder: Path) -> Papers:
    """An authority of our own, and one certificate of it."""
    now = datetime.datetime.now(datetime.UTC)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "fleet")}
    plain, pem = serialization.NoEncryption(), serialization.Encoding.PEM
    for name, key in keys.items():
        alternatives = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        signer = keys["ca"].public_key()
        cert = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name("ca"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
            .add_extension(alternatives, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
            .sign(keys["ca"], hashes.SHA256())
        )
        (folder / f"{name}.pem").write_bytes(cert.public_bytes(pem))
        secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
        (folder / f"{name}.key").touch(mode=0o600)
        (folder / f"{name}.key").write_bytes(secret)
    return Papers(folder / "ca.pem", folder / "fleet.pem", folder / "fleet.key")


class TlsBox(Box):
    """The same, all of it behind TLS."""

    def __init__(self, folder: Path, papers: Papers, docker_host: str, store_env: dict[str, str]) -> None:
        super().__init__(folder, docker_host, store_env)
        secure = [url.replace("http://", "https://") for url in (self.controller, self.agent, self.gateway)]
        super().__init__(
            folder, docker_host, store_env, FLEET_CONTROLLER=secure[0],
            FLEET_CONTROLLER_LISTEN=urlsplit(secure[0]).netloc, FLEET_AGENT_LISTEN=urlsplit(secure[1]).netloc,
            FLEET_GATEWAY_LISTEN=urlsplit(secure[2]).netloc, FLEET_TLS_CERT=str(papers.cert),
            FLEET_TLS_KEY=str(papers.key), FLEET_TLS_CA=str(papers.ca),
        )  # fmt: skip
        self.controller, self.agent, self.gateway = secure
        self.trust = ssl.create_default_context(cafile=str(papers.ca))

    def request(
        self, method: str, url: str, body: bytes | None = None, timeout_s: float = 30, **headers: str
    ) -> tuple[int, Any]:
        """One HTTPS request, the certificate checked; answers (status, JSON or bytes)."""
        parts = urlsplit(url)
        assert parts.scheme == "https"
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=timeout_s, context=self.trust
        )
        try:
            connection.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), body, headers)
            answer = connection.getresponse()
            data = answer.read()
        except http.client.HTTPException as e:
            raise ConnectionError(str(e)) from e
        finally:
            connection.close()
        return answer.status, json.loads(data) if data.startswith((b"{", b"[")) else data


@pytest.fixture(scope="module")
def secure(folder: Path, engine: Engine, images: str, minio: StoreServer) -> Iterator[TlsBox]:
    """A running fleet, all of it behind TLS."""
    env = minio.environment(minio.new_bucket(), "fleet")
    with running(TlsBox(folder, issue(folder), engine.host, env)) as started:
        assert isinstance(started, TlsBox)
        yield started


def test_everything_that_listens_speaks_tls_and_a_tenant_answers_over_it(secure: TlsBox) -> None:
    view = secure.json("up", "acme", "--app", str(APPROVALS))
    assert view["url"] == f"{secure.gateway}/t/acme/"
    assert view["url"].startswith("https://")
    assert secure.tenant("acme", "GET", "/hello") == (200, {"hello": "world"})
    assert secure.json("nodes")[0]["url"] == secure.agent
    secure.fleet("run", "acme", "approve", "--id", "one")
    assert secure.fleet("runs", "acme", "-o", "name").out == "one\n"
    assert "noted" in secure.fleet("logs", "acme").out
    for url in (secure.controller, secure.agent, secure.gateway):
        assert not speaks_plain_http(url)
    assert secure.json("down", "acme")["state"] == "released"


def speaks_plain_http(url: str) -> bool:
    """Whether a request without TLS gets what it asks for."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def test_a_certificate_of_nobody_known_is_refused_with_what_to_set(secure: TlsBox) -> None:
    done = secure.fleet("ls", check=False, FLEET_TLS_CA="")
    assert done.code == 6
    assert "FLEET_TLS_CA" in done.err


@pytest.mark.parametrize("name", ["FLEET_CONTROLLER_LISTEN", "FLEET_AGENT_LISTEN", "FLEET_GATEWAY_LISTEN"])
def test_beyond_loopback_nothing_listens_without_tls(tmp_path: Path, minio: StoreServer, name: str) -> None:
    env = Box(tmp_path, "unix:///nowhere.sock", minio.environment("unused", "fleet")).env
    env[name] = "0.0.0.0:" + env[name].rpartition(":")[2]
    for command in ("serve", "node"):
        done = subprocess.run([FLEET, command], env=env, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode != 0
        assert name in done.stderr
        assert "FLEET_TLS_CERT" in done.stderr
        assert "--insecure" in done.stderr
        assert "Traceback" not in done.stderr
