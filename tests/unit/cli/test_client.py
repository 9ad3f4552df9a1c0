"""Where the controller is, and with which token."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fleet.cli import client
from fleet.cli.client import Client, Target, find_target, tenant_path
from fleet.cli.errors import UNAVAILABLE, USAGE, CliError


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("FLEET_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(client, "STATE_FOLDERS", (tmp_path / "one", tmp_path / "two"))


def test_nothing_set_means_this_machine_and_no_token() -> None:
    assert find_target(None) == Target("http://127.0.0.1:7070", "")


def test_the_token_that_serve_keeps_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "two").mkdir()
    (tmp_path / "two/token").write_text("kept\n")
    assert find_target(None).token == "kept"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/token").write_text("other\n")
    monkeypatch.setenv("FLEET_STATE_DIR", str(tmp_path / "mine"))
    assert find_target(None).token == "other"


@pytest.mark.parametrize("text", ["new,old", "new old", " new , old", "new"])
def test_of_several_tokens_the_first_is_used(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FLEET_TOKEN", text)
    assert find_target(None).token == "new"


def test_a_readonly_token_serves_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_TOKEN_READONLY", "look")
    assert find_target(None).token == "look"
    monkeypatch.setenv("FLEET_TOKEN", "full")
    assert find_target(None).token == "full"


def test_the_environment_wins_over_the_settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text('controller = "https://fleet.example:7070"\ntoken = ["a", "b"]\ntls_ca = "/etc/ca.pem"\n')
    assert find_target(path) == Target("https://fleet.example:7070", "a", "/etc/ca.pem")
    monkeypatch.setenv("FLEET_CONTROLLER", "http://127.0.0.1:1")
    assert find_target(path).url == "http://127.0.0.1:1"


@pytest.mark.parametrize("content", [None, "not = [toml"])
def test_a_settings_file_that_can_not_be_read_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "fleet.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CliError, match=r"fleet\.toml") as e:
        find_target(path)
    assert e.value.code == USAGE


@pytest.mark.parametrize("url", ["127.0.0.1:7070", "ftp://x", "http://", "http://host:port"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(CliError, match="FLEET_CONTROLLER") as e:
        Client(Target(url, ""))
    assert e.value.code == USAGE


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="FLEET_TLS_CA") as e:
        Client(Target("https://localhost:1", "", str(tmp_path / "ca.pem")))
    assert e.value.code == USAGE


def test_nobody_listening_is_said_with_what_to_do() -> None:
    with pytest.raises(CliError, match="fleet serve") as e:
        Client(Target("http://127.0.0.1:9", "")).call("GET", "/v1/tenants")
    assert e.value.code == UNAVAILABLE


def test_names_are_quoted_into_paths() -> None:
    assert tenant_path("a/../b", "logs") == "/v1/tenants/a%2F..%2Fb/logs"
