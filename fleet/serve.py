"""`fleet serve` and `fleet node`: this machine's own processes, each a program of its own that survives the others."""

from __future__ import annotations

import http.client
import os
import ssl
import sys
from functools import partial
from urllib.parse import urlsplit

from fleet import store as embedded
from fleet import tokens
from fleet.supervise import Refused, Service, Supervisor
from node import log
from node.settings import Settings, is_loopback


class ServeError(Exception):
    """It cannot run on this machine as it is set: says what is wrong and what to do."""


def serve(settings: Settings) -> None:
    """Run store (if no bucket is set), controller and guard until SIGTERM or Ctrl-C. Raises ServeError."""
    log.configure("serve", settings.log_level)
    check_listening(settings)
    _need_root()
    try:
        settings, key_file = tokens.secrets_key(tokens.token(settings))
        settings.runtime_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        services = services_of(settings)
    except (OSError, ValueError) as e:
        raise ServeError(f"cannot use {settings.state_dir}: {e}") from None
    if key_file is not None:
        _say(f"made {key_file}: keep a copy of it elsewhere; without it the secrets in the bucket are lost")
    supervisor = Supervisor(settings.runtime_dir, services)
    try:
        supervisor.run(lambda: _say(_where(settings)))
    except Refused as e:
        raise ServeError(str(e)) from None


def node(settings: Settings) -> None:
    """Become this machine's guard: does not return. Raises ServeError."""
    check_listening(settings)
    _need_root()
    if settings.bucket is None:
        raise ServeError("FLEET_BUCKET is not set: a node joins the fleet whose bucket it names, like s3://my-fleet")
    if not settings.token:
        kept = tokens.read_token(settings.state_dir)
        if kept is None:
            raise ServeError("FLEET_TOKEN is not set: give the fleet's token, the one that its controller has")
        settings = settings.model_copy(update={"token": (kept,)})
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, "-m", "node.agent", "guard"], tokens.environment(settings))  # noqa: S606 - our own program, no shell


def services_of(settings: Settings) -> list[Service]:
    """What runs here, in the order of its start. Raises OSError, ValueError."""
    services: list[Service] = []
    env = tokens.environment(settings)
    if settings.bucket is None:
        store = embedded.embedded(settings.state_dir, settings.store_port)
        embedded.prepare(store)
        services.append(
            Service(
                "store",
                embedded.command(store),
                embedded.environment(store, env),
                ready=lambda: embedded.ready(store),
                first=True,
                lives_on=True,
                stop_s=30.0,
                log=embedded.log_of(store),
            )
        )
        here = {"bucket": store.bucket, "s3_endpoint": store.endpoint, "mode": "solo"}
        env = {**tokens.environment(settings.model_copy(update=here)), **store.credentials()}
    controller = [sys.executable, "-m", "fleet.app"]
    guard = [sys.executable, "-m", "node.agent", "guard"]
    controls = partial(_answers, settings, settings.controller_listen, "/readyz")
    works = partial(_answers, settings, settings.agent_listen, "/readyz")
    services.append(Service("controller", controller, env, ready=controls))
    services.append(Service("guard", guard, env, ready=works, lives_on=True, reloads=True, stop_s=None))
    return services


def check_listening(settings: Settings) -> None:
    """Nothing listens beyond loopback without TLS, unless that was asked for. Raises ServeError."""
    if settings.tls_cert is not None or settings.insecure:
        return
    for name in ("controller_listen", "agent_listen", "gateway_listen"):
        address = str(getattr(settings, name))
        if not is_loopback(address):
            raise ServeError(
                f"FLEET_{name.upper()} is {address}, beyond this machine, without TLS: give FLEET_TLS_CERT and "
                "FLEET_TLS_KEY, or --insecure if the network is trusted"
            )


def _need_root() -> None:
    if os.geteuid() != 0:
        raise ServeError("a node needs root (cgroups, disk allowances, firewall): run it as root, or by its unit")


def _answers(settings: Settings, listen: str, path: str) -> bool:
    host, _, port = listen.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))  # noqa: S104 - what it was told to listen on
    if settings.tls_cert is not None:
        unverified = ssl.create_default_context()
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE  # it says nothing but that it is up
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, int(port), timeout=2, context=unverified
        )
    else:
        connection = http.client.HTTPConnection(host, int(port), timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _where(settings: Settings) -> str:
    url = urlsplit(settings.controller)
    where = f"fleet: ready; controller {url.scheme}://{url.netloc}, tenants {settings.gateway_listen}"
    if settings.bucket is None:
        where += f"; embedded store in {settings.state_dir / 'store'}, which does not survive this machine"
    return where


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
