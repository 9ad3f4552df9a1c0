"""What the engine's errors mean to who asked: one translation, so that no type of the engine's gets out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import docker.errors
import requests

from node.agent.ports import RuntimeFailed

# First match wins: a piece of the engine's message, the reason, whether another try may help.
_MEANINGS = (
    ("no space left on device", "disk_full", True),
    ("disk quota exceeded", "disk_full", True),
    ("no such image", "no_image", False),
    ("bind source path does not exist", "no_volume", False),
    ("executable file not found", "bad_command", False),
    ("no such file or directory: unknown", "bad_command", False),
    ("permission denied: unknown", "bad_command", False),
    ("exec format error", "bad_image", False),
    ("cannot allocate memory", "no_memory", True),
    ("could not find an available", "no_address", True),
    ("no available ipv4 addresses", "no_address", True),
    ("address already in use", "no_address", True),
    ("network", "network", True),
)


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Run calls of the engine's client: what they raise becomes RuntimeFailed. `doing` says what, to which tenant."""
    try:
        yield
    except docker.errors.APIError as e:
        raise failed(doing, e.explanation or str(e), e.status_code or 500) from e
    except docker.errors.DockerException as e:
        raise unreachable(doing, e) from e
    except (requests.exceptions.RequestException, OSError) as e:
        raise unreachable(doing, e) from e


def failed(doing: str, explanation: str, status: int) -> RuntimeFailed:
    """The engine answered and refused: what its words and HTTP status mean."""
    text = str(explanation).strip()
    for piece, reason, retryable in _MEANINGS:
        if piece in text.lower():
            return RuntimeFailed(f"{doing}: {text}", reason=reason, retryable=retryable)
    if status == 404:
        return RuntimeFailed(f"{doing}: {text}", reason="not_found", retryable=False)
    if status == 409:
        return RuntimeFailed(f"{doing}: {text}", reason="conflict", retryable=True)
    if status < 500:
        return RuntimeFailed(f"{doing}: {text}", reason="bad_request", retryable=False)
    return RuntimeFailed(f"{doing}: {text}", reason="engine_failed", retryable=True)


def unreachable(doing: str, error: BaseException) -> RuntimeFailed:
    """The engine did not answer: not there, not allowed, or too slow. Whether it did it is unknown."""
    text = str(error)
    if "Permission denied" in text:
        hint = "this user may not use the engine's socket; run as root or join the group docker"
        return RuntimeFailed(f"{doing}: {hint}", reason="denied", retryable=False)
    if "timed out" in text.lower():
        return RuntimeFailed(f"{doing}: the engine did not answer in time", reason="engine_slow", retryable=True)
    return RuntimeFailed(
        f"{doing}: no engine answers; is it running? ({text[:300]})", reason="no_engine", retryable=True
    )
