"""TLS at the gateway: renewed while requests go on, and never left without a certificate."""

from __future__ import annotations

import datetime
import os
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from node.agent.gateway.config import GatewayConfig
from node.agent.gateway.errors import GatewayMisconfigured
from node.agent.gateway.haproxy import HaproxyGateway
from node.agent.ports import Route
from tests.integration.gateway.parts import UID, HostProcess, Upstream, free_port, upstream


def issue(name: str) -> tuple[bytes, bytes]:
    """A certificate and its key, PEM, for localhost, by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    return (
        cert.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain),
    )


class Served:
    """A gateway with TLS whose two files can be replaced."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.cert, self.key = folder.parent / "tls.crt", folder.parent / "tls.key"
        self.process = HostProcess(folder)
        config = GatewayConfig(f"127.0.0.1:{self.port}", None, self.cert, self.key)
        self.gateway = HaproxyGateway(config, self.process, folder, UID)

    def write(self, cert: bytes, key: bytes) -> None:
        self.cert.write_bytes(cert)
        self.key.write_bytes(key)

    def shown(self) -> bytes:
        """The certificate that a client gets to see, PEM."""
        return ssl.get_server_certificate(("127.0.0.1", self.port)).encode()


@pytest.fixture
def served(folder: Path) -> Iterator[Served]:
    if shutil.which("haproxy") is None or os.geteuid() != 0:
        pytest.skip("needs haproxy and root: apt-get install haproxy")
    served = Served(folder)
    yield served
    served.process.kill()


@pytest.fixture
def acme() -> Iterator[Upstream]:
    with upstream("acme") as server:
        yield server


def test_a_renewed_certificate_is_shown_and_no_request_is_lost(served: Served, acme: Upstream) -> None:
    first, second = issue("first"), issue("second")
    served.write(*first)
    served.gateway.ensure()
    served.gateway.route("acme", Route(acme.address))
    trust = ssl.create_default_context(cadata=(first[0] + second[0]).decode())
    with httpx.Client(base_url=f"https://localhost:{served.port}", verify=trust) as client:
        seen = client.get("/t/acme/").json()
        assert dict(seen["headers"])["x-forwarded-proto"] == "https"
        assert served.shown() == first[0]
        served.write(*second)
        served.gateway.ensure()
        assert served.shown() == second[0]
        assert client.get("/t/acme/").status_code == 200
        assert served.gateway.in_flight("acme") == 0


def test_half_a_renewal_changes_nothing_and_is_complained_about(served: Served, acme: Upstream) -> None:
    first, second = issue("first"), issue("second")
    served.write(*first)
    served.gateway.ensure()
    served.write(second[0], first[1])
    with pytest.raises(GatewayMisconfigured, match="FLEET_TLS_CERT"):
        served.gateway.ensure()
    assert served.shown() == first[0]
    served.gateway.route("acme", Route(acme.address))
    served.process.kill()
    with pytest.raises(GatewayMisconfigured):
        served.gateway.ensure()
    assert served.shown() == first[0]
    served.write(*second)
    served.gateway.ensure()
    assert served.shown() == second[0]


def test_without_a_usable_certificate_it_does_not_start_in_the_clear(served: Served) -> None:
    with pytest.raises(GatewayMisconfigured, match="FLEET_TLS_CERT"):
        served.gateway.ensure()
    assert not served.process.alive()


def test_the_key_is_readable_by_the_gateway_alone(served: Served) -> None:
    served.write(*issue("first"))
    served.gateway.ensure()
    held = (served.folder / "tls.pem").stat()
    assert (held.st_uid, held.st_gid, held.st_mode & 0o777) == (0, UID, 0o640)
    assert served.folder.stat().st_mode & 0o007 == 0


def test_http_2_is_offered(served: Served, acme: Upstream) -> None:
    served.write(*issue("first"))
    served.gateway.ensure()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection(("127.0.0.1", served.port)) as plain, context.wrap_socket(plain) as s:
        assert s.selected_alpn_protocol() == "h2"
