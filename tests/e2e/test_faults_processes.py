"""Every process killed in the middle of every operation: it is finished or undone without help, and nothing that was
acknowledged is lost."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.e2e.box import Box
from tests.e2e.ledger import Asking, Ledger, Writing
from tests.testbed.engine import Engine
from tests.testbed.faults import seeded

PROCESSES = ("guard", "agent", "controller")
PARTS = ("worker", "sidecar", *PROCESSES, "gateway", "all")
# About as long as each operation takes on a machine with nothing else to do.
LONGEST_S = {"up": 1.2, "down": 0.8, "restore": 1.5, "writes": 0.5}
# What CI runs: where most was found; the others are the long tier's.
OFTEN_WHILE_WRITING = ("agent", "guard", "sidecar", "all")
OFTEN = {("up", "agent"), ("down", "all"), ("restore", "guard"), ("restore", "worker")}


CASES = [
    pytest.param(operation, part, marks=() if (operation, part) in OFTEN else pytest.mark.long)
    for operation in ("up", "down", "restore")
    for part in PARTS
]


@pytest.fixture(autouse=True)
def _ready(box: Box) -> None:
    """What the test before killed is back."""
    box.eventually(box.ready, "a ready fleet")


def kill(box: Box, tenant: str, part: str) -> None:
    """SIGKILL one part, or everything there is at once."""
    if part == "all":
        for process in PROCESSES:
            box.kill(process)
        box.kill_all_containers()
    elif part in PROCESSES:
        box.eventually(lambda: box.kill(part), f"a {part} to kill", timeout_s=90)
    elif part == "gateway":
        box.docker("kill", "-s", "KILL", f"{box.fleet_name}-gateway", check=False)
    else:
        box.kill_container(tenant, part)


def when_there(box: Box, tenant: str, part: str) -> None:
    """A container that an operation is about to start cannot be killed before that."""
    if part in ("worker", "sidecar"):
        box.eventually(lambda: box.is_running(tenant, part), f"the {part} of {tenant}", timeout_s=90)


def goes_on(box: Box, ledger: Ledger) -> None:
    """It runs, says so, acknowledges again, and has everything."""
    box.wait_state(ledger.tenant, "running", timeout_s=120)
    ledger.write(3)
    ledger.check()


@pytest.mark.parametrize(
    "part", [p if p in OFTEN_WHILE_WRITING else pytest.param(p, marks=pytest.mark.long) for p in PARTS]
)
def test_a_part_is_killed_while_rows_are_written(box: Box, part: str) -> None:
    ledger = Ledger(box, f"writes-{part}")
    ledger.up()
    with seeded() as rng, Writing(ledger) as writing:
        for _ in range(2):
            writing.more()
            time.sleep(rng.uniform(0, LONGEST_S["writes"]))
            kill(box, ledger.tenant, part)
            writing.more()
    goes_on(box, ledger)
    ledger.check_bucket()
    box.fleet("down", ledger.tenant)


@pytest.mark.parametrize(("operation", "part"), CASES)
def test_a_part_is_killed_in_the_middle_of(box: Box, operation: str, part: str) -> None:
    ledger = Ledger(box, f"{operation}-{part}")
    ledger.up()
    ledger.write(5)
    begin, ends_in = prepared(box, ledger, operation)
    with seeded() as rng, Asking(ledger):
        begin()
        if operation != "down":
            when_there(box, ledger.tenant, part)
        time.sleep(rng.uniform(0, LONGEST_S[operation]))
        kill(box, ledger.tenant, part)
        box.wait_state(ledger.tenant, ends_in, timeout_s=120)
    if ends_in == "released":
        box.eventually(lambda: box.tenant(ledger.tenant, "GET", "/rows")[0] == 503, "a 503 for what is down")
        box.fleet("up", ledger.tenant)
    goes_on(box, ledger)
    ledger.check_bucket()
    box.fleet("down", ledger.tenant)


def prepared(box: Box, ledger: Ledger, operation: str) -> tuple[Callable[[], object], str]:
    """Everything that comes before an operation; answers how it is begun, and the state that it is to end in."""
    if operation == "down":
        ledger.write(5)
        return (lambda: box.fleet("down", ledger.tenant, "--no-wait")), "released"
    box.fleet("down", ledger.tenant)
    if operation == "restore":
        ledger.lose_volume()
    return (lambda: box.fleet("up", ledger.tenant, "--no-wait")), "running"


def test_a_restarted_agent_takes_up_its_tenants_and_no_request_fails(box: Box) -> None:
    ledger = Ledger(box, "adopted")
    ledger.up(rpo="1s")
    started = box.docker("inspect", "-f", "{{.State.StartedAt}}", box.container("adopted"))
    with Asking(ledger) as asking:
        for _ in range(3):
            before = box.pid("agent")
            box.kill("agent")
            another_agent(box, before)
            asking.more()
    assert set(asking.statuses) == {200}
    assert box.docker("inspect", "-f", "{{.State.StartedAt}}", box.container("adopted")) == started
    view = box.wait_state("adopted", "running")
    assert view["epoch"] == 1
    ledger.write(1)
    box.fleet("down", "adopted")


def another_agent(box: Box, before: int | None) -> None:
    """Wait until another agent than this one has taken up its tenants."""
    box.eventually(lambda: box.pid("agent") not in (None, before), "another agent")
    box.eventually(lambda: box.request("GET", f"{box.agent}/readyz")[0] == 200, "a ready agent")


def test_the_engine_is_restarted_and_its_tenants_come_back_by_themselves(box: Box, engine: Engine) -> None:
    one, other = Ledger(box, "engine-one"), Ledger(box, "engine-other")
    for ledger in (one, other):
        ledger.up()
    with Writing(one) as writing:
        writing.more()
        other.write(3)
        engine.stop()
        time.sleep(1)
        engine.start()
        writing.more()
    for ledger in (one, other):
        goes_on(box, ledger)
        ledger.check_bucket()
        box.fleet("down", ledger.tenant)


def test_the_engine_dies_and_its_tenants_go_on(box: Box, engine: Engine) -> None:
    ledger = Ledger(box, "orphaned")
    ledger.up()
    with Writing(ledger) as writing:
        writing.more()
        engine.kill()
        try:
            writing.more(timeout_s=90)
        finally:
            engine.start()
        writing.more()
    goes_on(box, ledger)
    box.fleet("down", ledger.tenant)
