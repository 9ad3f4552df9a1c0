"""A tenant's secrets when an agent is followed by another, which has no values: it never starts without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from node.agent import memory, secretfiles, walk
from node.agent.ports import Container
from node.bucket.spec import SecretRef
from tests.unit.agent.place import CLAIM, NAME, SPEC, UP, Place, run

NAMES = SPEC.model_copy(update={"secrets": {"key": SecretRef(version=1)}})
RECALLED = UP.model_copy(update={"spec": NAMES})
SENT = RECALLED.model_copy(update={"secrets": {"key": "value"}})
ONE_THAT_DIED = Container(NAME, "acme", "worker", 3, 7, 1, running=False, exit_code=137)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    async def healthy(_: str, health: str, **__: Any) -> str:
        return "it answers 500" if health == "/never" else ""

    monkeypatch.setattr(walk, "wait_healthy", healthy)
    monkeypatch.setattr("node.agent.plan.BACKOFF_FIRST_S", 1000.0)  # no try comes by itself in time


def test_one_that_has_its_secrets_no_more_starts_as_soon_as_they_are_sent_again(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        memory.remember(tmp_path / "run", SENT)
        await place.node.adopt()
        await place.until(lambda: place.node.board.get("acme").reason == "no_secrets" or place.engine.made)
        assert place.engine.made == 0
        assert place.node.board.get("acme").state == "failed"
        await place.node.assign(SENT)
        await place.until(lambda: place.tenant.actual.worker)
        assert place.engine.secrets == {"key": "value"}

    run(tmp_path, test)


def test_a_new_agent_starts_one_that_died_with_the_secrets_that_are_still_here(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        memory.remember(tmp_path / "run", SENT)
        secretfiles.write(tmp_path / "run", "acme", place.node.parts.uid_of("acme"), SENT.secrets)
        place.engine.found[NAME] = ONE_THAT_DIED
        await place.node.adopt()
        await place.until(lambda: place.tenant.actual.worker or place.node.board.get("acme").reason)
        assert place.engine.secrets == {"key": "value"}

    run(tmp_path, test)


def test_secrets_of_a_tenant_that_nobody_wants_here_go(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        secretfiles.write(tmp_path / "run", "acme", place.node.parts.uid_of("acme"), SENT.secrets)
        place.engine.found[NAME] = ONE_THAT_DIED
        await place.node.adopt()
        assert not secretfiles.folder(tmp_path / "run", "acme").exists()

    run(tmp_path, test)


def test_a_secret_that_is_new_in_the_spec_is_waited_for_and_the_spec_is_not_given_up(tmp_path: Path) -> None:
    """The agent before died between being told and restarting it."""

    async def test(place: Place) -> None:
        more = SPEC.model_copy(update={"secrets": {**NAMES.secrets, "new": SecretRef(version=1)}})
        secretfiles.write(tmp_path / "run", "acme", place.node.parts.uid_of("acme"), SENT.secrets)
        want = UP.model_copy(update={"generation": 2, "spec": more, "previous": NAMES})
        memory.remember(tmp_path / "run", want)
        place.engine.found[NAME] = Container(NAME, "acme", "worker", 3, 7, 1, running=True, address="10.0.0.2")
        memory.remember_worker(tmp_path / "run", "acme", "of generation 1")
        place.custody.adopted = CLAIM
        await place.node.adopt()
        await place.until(lambda: place.node.board.get("acme").reason in ("no_secrets", "rolled_back"))
        assert not place.node.board.get("acme").rolled_back
        await place.node.assign(want.model_copy(update={"secrets": {"key": "value", "new": "too"}}))
        await place.until(lambda: place.tenant.actual.settled == 2)
        assert place.engine.secrets == {"key": "value", "new": "too"}

    run(tmp_path, test)


@pytest.mark.parametrize("health", ["/never", "/"])
def test_secrets_that_a_spec_does_not_name_any_more_go_once_it_is_healthy(tmp_path: Path, health: str) -> None:
    async def test(place: Place) -> None:
        place.tenant.assign(SENT)
        await place.until(lambda: place.tenant.actual.worker)
        without = SPEC.model_copy(update={"health": health})
        place.tenant.assign(UP.model_copy(update={"generation": 2, "spec": without, "previous": NAMES}))
        await place.until(lambda: place.tenant.actual.settled == 2)
        back = health == "/never"
        assert place.node.board.get("acme").rolled_back == back
        assert place.engine.secrets == ({"key": "value"} if back else None)
        assert secretfiles.folder(tmp_path / "run", "acme").exists() == back

    run(tmp_path, test)
