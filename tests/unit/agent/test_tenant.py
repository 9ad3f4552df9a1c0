"""A tenant's steps among what can happen beside them: ousted, an engine that refuses, an agent that died."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from node.agent import memory, tenant, walk
from node.agent.places import Rank
from node.agent.plan import fingerprint
from node.agent.ports import Container, RuntimeFailed
from node.agent.server import Fault
from tests.unit.agent.place import CLAIM, NAME, SPEC, UP, Place, run


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    async def healthy(*_: Any, **__: Any) -> str:
        return ""

    monkeypatch.setattr(walk, "wait_healthy", healthy)
    monkeypatch.setattr(tenant, "KILL_AGAIN_S", 0)
    monkeypatch.setattr("node.agent.plan.BACKOFF_FIRST_S", 0.001)


@pytest.mark.parametrize("call", ["create", "start"])
def test_nothing_of_a_tenant_that_was_ousted_in_the_middle_of_a_start_runs_afterwards(
    tmp_path: Path, call: str
) -> None:
    async def test(place: Place) -> None:
        gate = place.engine.gate(call)
        place.tenant.assign(UP)
        await place.until(place.engine.reached[call].is_set)
        place.tenant.want = None  # nobody asks for it again
        ousted = asyncio.create_task(place.tenant.ousted())
        if call == "create":
            await ousted
        gate.set()
        await ousted
        await asyncio.sleep(0.05)
        assert place.engine.running() == []
        assert not place.tenant.actual.worker

    run(tmp_path, test)


def test_what_is_another_nodes_is_killed_until_it_is_dead(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        await place.up()
        place.engine.refuse["containers"] = 3
        place.tenant.want = None
        await place.tenant.ousted()
        assert place.engine.found == {}
        assert not place.tenant.actual.held

    run(tmp_path, test)


def test_a_sidecar_is_forgotten_before_it_is_killed(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        await place.up()
        gate = place.engine.gate("remove")
        place.tenant.want = None
        ousted = asyncio.create_task(place.tenant.ousted())
        await place.until(place.engine.reached["remove"].is_set)
        assert "forget" in place.custody.calls  # so nobody starts it again when its death is heard of
        gate.set()
        await ousted

    run(tmp_path, test)


def test_a_new_session_waits_for_the_death_of_what_is_another_nodes(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        await place.up()
        gate = place.engine.gate("containers")
        place.tenant.want = None
        ousted = asyncio.create_task(place.tenant.ousted())
        await place.until(place.engine.reached["containers"].is_set)
        assert place.tenant.walk.claim is None  # so it is not taken into the session; and its worker still runs
        begun = asyncio.create_task(place.node.resession())
        await asyncio.sleep(0.05)
        assert not begun.done()
        gate.set()
        await begun
        assert place.engine.found == {}
        await ousted

    run(tmp_path, test)


def test_the_death_of_an_earlier_worker_of_the_same_name_is_history(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        await place.up()
        first = replace(place.engine.found[NAME], running=False, exit_code=143)
        place.tenant.assign(UP.model_copy(update={"generation": 2, "restarts": 1}))
        await place.until(lambda: place.tenant.actual.settled == 2)
        place.tenant.worker_ended(first)
        assert place.tenant.actual.worker
        assert place.tenant.walk.worker == NAME
        assert place.tenant.restarts == 0
        place.tenant.worker_ended(replace(place.engine.found[NAME], running=False, exit_code=1))
        assert place.tenant.restarts == 1

    run(tmp_path, test)


def test_nothing_is_released_while_the_worker_runs_though_the_engine_refused_to_stop_it(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        await place.up()
        place.engine.refuse["stop"] = 2
        place.tenant.assign(UP.model_copy(update={"generation": 2, "want": "down"}))
        await place.until(lambda: place.tenant.actual.settled == 2)
        assert [c for c in place.custody.calls if c.startswith("release")] == ["release while [] run"]

    run(tmp_path, test)


def test_a_node_that_stops_starts_nothing_again_whatever_is_wanted_of_it_meanwhile(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        await place.up()
        place.custody.unconfirmed = 10**6
        assert await place.tenant.release_now()
        place.tenant.assign(UP.model_copy(update={"generation": 2}))
        await asyncio.sleep(0)
        assert place.tenant._task is None
        assert NAME not in place.engine.found
        place.custody.unconfirmed = 0
        await place.tenant.thaw()  # its guard has begun a new session instead
        place.tenant.assign(UP.model_copy(update={"generation": 3}))
        await place.until(lambda: place.tenant.actual.settled == 3)

    run(tmp_path, test)


def test_a_node_that_leaves_takes_up_no_tenant_that_is_new_to_it(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        place.node.adopted = True
        await place.up()
        gate = place.engine.gate("stop")
        leaving = asyncio.create_task(place.node.release())
        await place.until(place.engine.reached["stop"].is_set)
        place.custody.calls.clear()
        with pytest.raises(Fault) as refused:
            await place.node.assign(UP.model_copy(update={"tenant": "beta"}))
        assert (refused.value.status, refused.value.reason, refused.value.retryable) == (503, "stopping", True)
        gate.set()
        assert await leaving == []
        assert "claim" not in place.custody.calls
        await place.node.thaw()  # its guard has begun a new session instead
        await place.node.assign(UP.model_copy(update={"generation": 2}))
        await place.until(lambda: place.tenant.actual.settled == 2)

    run(tmp_path, test)


def test_a_release_that_did_not_end_is_taken_back_before_the_worker_starts_again(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        await place.up()
        place.custody.unconfirmed = 10**6
        place.tenant.assign(UP.model_copy(update={"generation": 2, "want": "down"}))
        await place.until(lambda: any(c.startswith("release") for c in place.custody.calls))
        place.custody.calls.clear()
        place.tenant.assign(UP.model_copy(update={"generation": 3}))
        await place.until(lambda: place.tenant.actual.settled == 3)
        assert "resume" in place.custody.calls

    run(tmp_path, test)


def test_a_worker_is_made_while_its_files_are_confirmed_and_started_only_if_nothing_changed(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        await place.up()
        assert place.engine.made == 1
        walk = place.tenant.walk
        await walk.stop_worker()
        await walk.make(UP, 7)
        assert place.engine.running() == []
        await walk.start(UP.model_copy(update={"generation": 2}), 7)
        assert place.engine.found[NAME].generation == 2
        assert place.engine.made == 3

    run(tmp_path, test)


def test_a_spec_is_not_given_up_for_an_address_that_was_not_free(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        await place.up()
        create = place.engine.create

        def refuses(spec: Any) -> str:
            place.engine.create = create  # type: ignore[method-assign] # once
            raise RuntimeFailed("address already in use", reason="no_address", retryable=True)

        place.engine.create = refuses  # type: ignore[method-assign] # of this engine alone
        new = SPEC.model_copy(update={"env": {"A": "b"}})
        place.tenant.assign(UP.model_copy(update={"generation": 2, "spec": new, "previous": SPEC}))
        await place.until(lambda: place.tenant.actual.settled == 2)
        assert not place.node.board.get("acme").rolled_back
        assert place.tenant.actual.worker == fingerprint(new, 0)

    run(tmp_path, test)


def test_a_server_starts_with_a_whole_processor_and_goes_on_with_what_it_was_given(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        await place.up()
        assert place.engine.allowed == [(NAME, 1.0), (NAME, SPEC.limits.cpus)]

    run(tmp_path, test)


def test_requests_of_a_tenant_that_leaves_are_held_and_follow_it(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        await place.up()
        place.told.clear()
        place.tenant.assign(UP.model_copy(update={"generation": 2, "want": "down", "moving": True}))
        await place.until(lambda: place.followed)
        assert place.told == ["hold leaving"]
        assert place.followed == ["acme"]

    run(tmp_path, test)


def test_who_waits_for_a_tenant_that_cannot_leave_yet_is_told(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        await place.up()
        place.custody.unconfirmed = 1
        place.told.clear()
        place.tenant.assign(UP.model_copy(update={"generation": 2, "want": "down", "moving": True}))
        await place.until(lambda: place.followed)
        assert place.told == ["hold leaving", "unroute", "hold leaving"]

    run(tmp_path, test)


def test_requests_of_a_tenant_that_comes_wait_and_those_of_one_that_is_down_are_looked_for(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        place.tenant.assign(UP.model_copy(update={"moving": True}))
        await place.until(lambda: place.tenant.actual.worker)
        assert place.told == ["hold", "route"]
        place.tenant.assign(UP.model_copy(update={"generation": 2, "want": "down"}))
        await place.until(lambda: len(place.told) == 4)
        assert place.told[2:] == ["unroute", "forget"]
        assert place.followed == []

    run(tmp_path, test)


@pytest.mark.parametrize("told", [True, False])
def test_an_agent_that_died_before_it_restarted_the_worker_is_followed_by_one_that_does(
    tmp_path: Path, *, told: bool
) -> None:
    async def test(place: Place) -> None:
        newer = UP.model_copy(update={"generation": 2, "restarts": 1 if told else 0})
        place.engine.create(cast("Any", SimpleNamespace()))
        runs = replace(place.engine.start(NAME), generation=1)
        place.engine.found[NAME] = runs
        memory.remember(tmp_path / "run", newer)
        memory.remember_worker(tmp_path / "run", "acme", fingerprint(SPEC, 0))
        place.custody.adopted = CLAIM
        await place.node.adopt()
        assert place.engine.allowed[0] == (NAME, SPEC.limits.cpus), "its agent may have died while it started"
        await place.until(lambda: place.tenant.actual.settled == 2)
        assert (place.engine.found[NAME].instance != runs.instance) == told

    run(tmp_path, test)


def test_what_was_restored_and_not_confirmed_when_the_agent_died_is_confirmed_before_its_worker_starts(
    tmp_path: Path,
) -> None:
    async def test(place: Place) -> None:
        place.engine.found["acme-sidecar"] = Container("acme-sidecar", "acme", "sidecar", 4, 7, 0, running=True)
        memory.remember(tmp_path / "run", UP)
        place.custody.adopted = replace(CLAIM, kind="adopted", epoch=4)
        gate = place.engine.gate("create")
        await place.node.adopt()
        assert not place.tenant.actual.held
        gate.set()
        await place.until(lambda: place.tenant.actual.worker)
        assert place.custody.calls.index("claim") < place.custody.calls.index("stream")

    run(tmp_path, test)


def test_an_assignment_that_was_overtaken_is_not_what_the_next_agent_finds(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        place.node.adopted = True
        await place.node.assign(UP.model_copy(update={"generation": 5}))
        await place.node.assign(UP.model_copy(update={"generation": 4, "want": "purged"}))
        assert memory.recall(tmp_path / "run")["acme"].want == "up"

    run(tmp_path, test)


def test_a_worker_that_ends_while_it_is_taken_up_is_started_again(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        place.engine.create(cast("Any", SimpleNamespace()))
        place.engine.start(NAME)
        memory.remember(tmp_path / "run", UP.model_copy(update={"generation": 1}))
        memory.remember_worker(tmp_path / "run", "acme", fingerprint(SPEC, 0))
        place.custody.adopted = CLAIM
        now, before = place.engine.containers, [place.engine.containers()]
        place.engine.kill(NAME)
        place.engine.containers = lambda: before.pop() if before else now()  # type: ignore[method-assign] # it ends now
        await place.node.adopt()
        await place.until(lambda: place.engine.made == 2 and place.tenant.actual.worker)

    run(tmp_path, test)


def test_one_that_waits_for_its_turn_says_so_and_goes_down_before_it_comes(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        places = place.node.parts.places
        async with places.place("other", Rank.VOLUME):
            place.tenant.assign(UP)
            await place.until(lambda: place.node.board.get("acme").reason == "its_turn")
            assert "before it: 1" in place.node.board.get("acme").message
            place.tenant.assign(UP.model_copy(update={"generation": 2, "want": "down"}))
            await place.until(lambda: place.node.board.get("acme").state == "released")
            place.tenant.assign(UP.model_copy(update={"generation": 3}))
            await place.until(lambda: place.node.board.get("acme").reason == "its_turn")
        await place.until(lambda: place.tenant.actual.settled == 3)
        assert place.node.board.get("acme").reason == ""
        assert "turn" in {phase.name for phase in place.node.board.get("acme").phases}
        assert places.taken == place.node.parts.claims.taken == 0

    run(tmp_path, test)


def test_one_that_moves_waits_for_nobody(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        async with place.node.parts.places.place("other", Rank.VOLUME):
            place.tenant.assign(UP.model_copy(update={"moving": True}))
            await place.until(lambda: place.tenant.actual.settled == 1)

    run(tmp_path, test)


def test_one_that_is_ousted_while_it_waits_takes_no_place(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        places = place.node.parts.places
        async with places.place("other", Rank.VOLUME):
            place.tenant.assign(UP)
            await place.until(lambda: place.node.board.get("acme").reason == "its_turn")
            place.tenant.want = None  # nobody asks for it again
            await place.tenant.ousted()
        assert places.taken == 0
        assert place.engine.made == 0

    run(tmp_path, test)


def test_tenants_are_not_claimed_far_ahead_of_what_can_be_brought_up(tmp_path: Path) -> None:
    async def test(place: Place) -> None:
        async with place.node.parts.places.place("other", Rank.VOLUME):
            for name in ("acme", "beta", "gamma", "delta"):
                place.node._tenant(name).assign(UP.model_copy(update={"tenant": name}))
            waiting = ("acme", "beta", "gamma", "delta")
            await place.until(lambda: all(place.node.board.get(name).reason == "its_turn" for name in waiting))
            assert place.custody.calls.count("claim") == 2

    run(tmp_path, test)
