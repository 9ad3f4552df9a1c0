from __future__ import annotations

import docker.errors
import pytest
import requests

from node.agent.ports import RuntimeFailed
from node.agent.runtime.errors import failed, translated


@pytest.mark.parametrize(
    ("explanation", "status", "reason", "retryable"),
    [
        ("No such image: nope:latest", 404, "no_image", False),
        ("No such container: fleet-acme-worker", 404, "not_found", False),
        ("invalid mount config: bind source path does not exist: /s/t/acme/run", 400, "no_volume", False),
        ('exec: "nope": executable file not found in $PATH: unknown', 400, "bad_command", False),
        ("exec /litestream: exec format error", 500, "bad_image", False),
        ("write /var/lib/docker/overlay2/x: no space left on device", 500, "disk_full", True),
        ("Conflict. The container name is already in use", 409, "conflict", True),
        ("could not find an available, non-overlapping IPv4 address pool", 500, "no_address", True),
        ("invalid CPU count", 400, "bad_request", False),
        ("something broke", 500, "engine_failed", True),
    ],
)
def test_the_engines_words_become_a_reason(explanation: str, status: int, reason: str, retryable: bool) -> None:
    error = failed("create fleet-acme-worker", explanation, status)
    assert (error.reason, error.retryable) == (reason, retryable)
    assert str(error).startswith("create fleet-acme-worker: ")


@pytest.mark.parametrize(
    ("error", "reason", "retryable"),
    [
        (docker.errors.DockerException("Error ... PermissionError(13, 'Permission denied')"), "denied", False),
        (docker.errors.DockerException("Error ... FileNotFoundError(2, 'No such file')"), "no_engine", True),
        (requests.exceptions.ConnectionError("Connection refused"), "no_engine", True),
        (
            requests.exceptions.ReadTimeout("UnixHTTPConnectionPool: Read timed out. (read timeout=60)"),
            "engine_slow",
            True,
        ),
    ],
)
def test_an_engine_that_does_not_answer_is_told_apart(error: Exception, reason: str, retryable: bool) -> None:
    with pytest.raises(RuntimeFailed) as raised, translated("start fleet-acme-worker"):
        raise error
    assert (raised.value.reason, raised.value.retryable) == (reason, retryable)


def test_what_was_translated_already_stays_as_it_is() -> None:
    mine = RuntimeFailed("running", reason="running", retryable=False)
    with pytest.raises(RuntimeFailed) as raised, translated("create"):
        raise mine
    assert raised.value is mine
