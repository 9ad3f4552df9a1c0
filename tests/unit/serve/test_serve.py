"""What `fleet serve` is about to run, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from fleet import serve, store, supervise, tokens
from node.settings import Settings, load


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLEET_TOKEN", "FLEET_BUCKET", "FLEET_NODE"):
        monkeypatch.delenv(name, raising=False)


def settings(tmp_path: Path, **changes: object) -> Settings:
    return Settings.model_validate({"state_dir": tmp_path, "run_dir": tmp_path / "run", **changes})


@pytest.mark.parametrize("name", ["controller_listen", "agent_listen", "gateway_listen"])
@pytest.mark.parametrize("address", ["0.0.0.0:7070", "10.0.0.1:7070", "[::]:7070", "example.org:7070"])
def test_beyond_loopback_only_with_tls_or_insecure(tmp_path: Path, name: str, address: str) -> None:
    with pytest.raises(serve.ServeError, match=f"FLEET_{name.upper()}"):
        serve.check_listening(settings(tmp_path, **{name: address}))
    serve.check_listening(settings(tmp_path, **{name: address, "insecure": True}))
    serve.check_listening(settings(tmp_path, **{name: address, "tls_cert": Path("c"), "tls_key": Path("k")}))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.53:1", "localhost:1", "[::1]:1"])
def test_loopback_needs_nothing(tmp_path: Path, address: str) -> None:
    serve.check_listening(settings(tmp_path, controller_listen=address))


def test_a_name_that_begins_like_loopback_is_not_loopback(tmp_path: Path) -> None:
    with pytest.raises(serve.ServeError):
        serve.check_listening(settings(tmp_path, controller_listen="localhost.example.org:1"))
    with pytest.raises(serve.ServeError):
        serve.check_listening(settings(tmp_path, controller_listen="127.example.org:1"))


def test_without_a_bucket_the_embedded_store_runs_and_the_fleet_is_solo(tmp_path: Path) -> None:
    services = serve.services_of(settings(tmp_path))
    assert [s.name for s in services] == ["store", "controller", "guard"]
    for service in services[1:]:
        assert service.environment["FLEET_BUCKET"] == "s3://fleet"
        assert service.environment["FLEET_S3_ENDPOINT"] == "http://127.0.0.1:7090"
        assert service.environment["FLEET_MODE"] == "solo"
        assert service.environment["AWS_SECRET_ACCESS_KEY"]


def test_with_a_bucket_no_store_runs(tmp_path: Path) -> None:
    services = serve.services_of(settings(tmp_path, bucket="s3://mine/prod"))
    assert [s.name for s in services] == ["controller", "guard"]
    assert services[0].environment["FLEET_BUCKET"] == "s3://mine/prod"
    assert services[0].environment["FLEET_MODE"] == "shared"


def test_no_secret_is_in_any_argument_or_repr(tmp_path: Path) -> None:
    whole, _ = tokens.secrets_key(tokens.token(settings(tmp_path)))
    services = serve.services_of(whole)
    hidden = [
        whole.token[0].get_secret_value(),
        whole.secrets_key.get_secret_value() if whole.secrets_key else "",
        services[1].environment["AWS_SECRET_ACCESS_KEY"],
    ]
    assert all(len(h) > 20 for h in hidden)
    shown = " ".join(" ".join(s.command) + repr(s) for s in services) + repr(store.embedded(tmp_path, 7090))
    assert not [h for h in hidden if h in shown]


def test_the_store_knows_no_secret_but_its_own(tmp_path: Path) -> None:
    services = serve.services_of(tokens.token(settings(tmp_path)))
    assert not [name for name in services[0].environment if name.startswith("FLEET_")]


def test_everything_of_the_store_is_bound_to_loopback_and_nothing_else_is_on(tmp_path: Path) -> None:
    command = store.command(store.embedded(tmp_path, 9000))
    assert {"-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false", "-admin.ui=false"} <= set(command)
    assert {"-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"} <= set(command)
    ports = sorted(int(c.rpartition("=")[2]) for c in command if ".port" in c and not c.endswith("=0"))
    assert ports == list(range(9000, 9010))


def test_what_is_made_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    first = tokens.token(settings(tmp_path))
    again = tokens.token(settings(tmp_path))
    assert first.token == again.token
    assert tokens.read_token(tmp_path) == first.token[0]
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


def test_the_secrets_key_is_announced_once(tmp_path: Path) -> None:
    one, made = tokens.secrets_key(settings(tmp_path))
    two, made_again = tokens.secrets_key(settings(tmp_path))
    assert one.secrets_key == two.secrets_key
    assert (made, made_again) == (tmp_path / "secrets.key", None)


def test_given_secrets_are_not_replaced(tmp_path: Path) -> None:
    given = settings(tmp_path, token="a,b", secrets_key="k")
    assert tokens.token(given) is given
    assert tokens.secrets_key(given) == (given, None)
    assert not (tmp_path / "token").exists()


def test_settings_go_through_the_environment_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = settings(
        tmp_path,
        bucket="s3://mine/prod",
        labels="zone=a,rack=7",
        token="one,two",
        secrets_key="k",
        insecure=True,
        cpus=1.5,
        node="n7",
    )
    for name, value in tokens.environment(before).items():
        if name.startswith("FLEET_"):
            monkeypatch.setenv(name, value)
    assert load() == before
    assert load().token == (SecretStr("one"), SecretStr("two"))


def test_a_service_that_falls_again_and_again_waits_longer() -> None:
    waits = [supervise.wait_before(n) for n in range(12)]
    assert waits[:2] == [0.0, 0.2]
    assert waits == sorted(waits)
    assert waits[-1] == 15.0
