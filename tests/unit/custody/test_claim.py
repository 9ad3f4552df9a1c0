"""The claim's decision, as tables."""

from __future__ import annotations

import pytest

from node.agent.custody.claim import Continue, Elsewhere, Fresh, Me, No, VolumeFacts, decide, freedom, session_over
from node.agent.custody.position import Position
from node.bucket.records import Capacity, Lease, Owner, Restore

ME = Me("n1", 5, "boot-a")
TXID = "0000000000000007"


def owner(**changes: object) -> Owner:
    base: dict[str, object] = {
        "nonce": "x", "tenant": "acme", "epoch": 3, "node": "n1", "session": 5, "state": "running", "data_epoch": 3,
        "observed_generation": 1, "positions": {"app.db": TXID},
    }  # fmt: skip
    return Owner.model_validate(base | changes)


def lease(**changes: object) -> Lease:
    base: dict[str, object] = {
        "nonce": "x", "node": "n2", "session": 5, "seq": 1, "ttl_s": 15.0, "margin_s": 3.0, "url": "",
        "state": "active", "mode": "shared", "capacity": Capacity(memory_bytes=1, cpus=1.0, disk_bytes=1),
    }  # fmt: skip
    return Lease.model_validate(base | changes)


def volume(**changes: object) -> VolumeFacts:
    base: dict[str, object] = {"node": "n1", "epoch": 3, "boot_id": "boot-a", "local": {"app.db": 7}}
    return VolumeFacts(**(base | changes))  # type: ignore[arg-type] # a table of fields


RESTORE = Restore(id="r1")

OVER = [
    ("gone for that session", lease(state="gone"), True),
    ("gone for a later session", lease(session=6, state="gone"), True),
    ("a later session lives", lease(session=6), True),
    ("that session lives", lease(), False),
    ("draining is not over", lease(state="draining"), False),
    ("an earlier session: the lease was read before the record", lease(session=4, state="gone"), False),
    ("no lease: nothing is known", None, False),
    ("somebody else's lease", lease(node="n3", state="gone"), False),
]


@pytest.mark.parametrize(("why", "found", "over"), OVER, ids=[row[0] for row in OVER])
def test_a_session_is_over_only_when_its_lease_says_so(why: str, found: Lease | None, over: bool) -> None:
    assert session_over(owner(node="n2"), found) is over


FREE = [
    ("no record", None, None, None, None),
    ("released by another node", owner(node="n2", state="released"), None, None, None),
    ("hibernated", owner(node="n2", state="hibernated"), None, None, None),
    ("purged", owner(node="n2", state="purged"), None, None, None),
    ("mine in this session", owner(), None, None, None),
    ("mine in an earlier session", owner(session=4), None, None, None),
    ("mine in a later session: I am the zombie", owner(session=6), None, None, Elsewhere),
    ("another node that lives", owner(node="n2"), lease(), None, Elsewhere),
    ("another node that is gone", owner(node="n2"), lease(state="gone"), None, None),
    ("claimed elsewhere", owner(node="n2", state="claimed"), lease(), None, Elsewhere),
    ("another node whose lease is unknown", owner(node="n2"), None, None, Elsewhere),
    ("lost", owner(state="lost"), None, None, No),
    ("damaged", owner(state="damaged"), None, None, No),
    ("lost, and a new restore was asked for", owner(state="lost"), None, RESTORE, None),
    ("lost, and that restore was tried already", owner(state="lost", restore_id="r1"), None, RESTORE, No),
]


@pytest.mark.parametrize(("why", "record", "found", "restore", "expected"), FREE, ids=[row[0] for row in FREE])
def test_who_may_claim(
    why: str, record: Owner | None, found: Lease | None, restore: Restore | None, expected: type | None
) -> None:
    answer = freedom(ME, record, found, restore)
    assert answer is None if expected is None else isinstance(answer, expected)


EQUAL, AHEAD, BEHIND, DIVERGED = ({"app.db": p} for p in list(Position)[:4])
REBOOTED = volume(boot_id="boot-0")

DECIDE = [
    ("never seen: born", None, None, None, None, Fresh(1, "born")),
    ("as it was", owner(), volume(), EQUAL, None, Continue(3)),
    ("with bytes that are only here", owner(), volume(), AHEAD, None, Continue(3)),
    ("an earlier session of this node, same boot", owner(session=4), volume(), AHEAD, None, Continue(3)),
    ("behind the bucket: an old disk", owner(), volume(), BEHIND, None, Fresh(4, "failover")),
    ("another history", owner(), volume(), DIVERGED, None, Fresh(4, "failover")),
    ("positions not known", owner(), volume(), None, None, Fresh(4, "failover")),
    ("no volume", owner(), None, None, None, Fresh(4, "failover")),
    ("the machine went down while it ran", owner(), REBOOTED, EQUAL, None, Fresh(4, "unclean")),
    ("it went down, released at that position", owner(state="released"), REBOOTED, EQUAL, None, Continue(3)),
    ("it went down, hibernated at that position", owner(state="hibernated"), REBOOTED, EQUAL, None, Continue(3)),
    ("it went down, released, and is ahead", owner(state="released"), REBOOTED, AHEAD, None, Fresh(4, "move")),
    (
        "it went down, and is at another position than it recorded",
        owner(state="released"), volume(boot_id="boot-0", local={"app.db": 8}), EQUAL, None, Fresh(4, "move"),
    ),
    (
        "it went down, and a file is missing",
        owner(state="released"), volume(boot_id="boot-0", local={}), {}, None, Fresh(4, "move"),
    ),
    ("the marker is of an older epoch", owner(), volume(epoch=2), EQUAL, None, Fresh(4, "failover")),
    ("its first snapshot was never confirmed", owner(), volume(epoch=0), EQUAL, None, Fresh(4, "failover")),
    ("the record's epoch holds no data yet", owner(data_epoch=2), volume(), EQUAL, None, Fresh(4, "failover")),
    ("claimed and never settled", owner(state="claimed", data_epoch=2), volume(), EQUAL, None, Fresh(4, "failover")),
    ("another node's volume", owner(), volume(node="n2"), EQUAL, None, Fresh(4, "failover")),
    ("it was on another node since", owner(node="n2", state="released"), volume(), EQUAL, None, Fresh(4, "move")),
    ("purged", owner(state="purged"), volume(), EQUAL, None, Fresh(4, "reborn")),
    ("a restore was asked for", owner(state="released"), volume(), EQUAL, RESTORE, Fresh(4, "restore")),
    ("a restore was asked for while it was to be carried", owner(epoch=4, state="claimed", carried=4),
     volume(boot_id="boot-0", intact=True, foreign=True), EQUAL, RESTORE, Fresh(5, "restore")),
    ("that restore is done", owner(state="released", restore_id="r1"), volume(), EQUAL, RESTORE, Continue(3)),
]  # fmt: skip


CARRIED = Fresh(4, "unclean", carried=True)
INTACT = volume(boot_id="boot-0", intact=True)

CARRYING = owner(epoch=4, state="claimed", carried=4)

AFTER_A_POWER_CUT = [
    ("equal", owner(), INTACT, EQUAL, 1.0, CARRIED),
    ("with bytes that are only here", owner(), INTACT, AHEAD, 1.0, CARRIED),
    ("nobody accepted a loss: from the bucket", owner(), INTACT, AHEAD, 0.0, Fresh(4, "unclean")),
    ("its log lost what was copied", owner(), REBOOTED, AHEAD, 1.0, Fresh(4, "unclean")),
    ("behind: an older copy of itself", owner(), INTACT, BEHIND, 1.0, Fresh(4, "unclean")),
    ("another history", owner(), INTACT, DIVERGED, 1.0, Fresh(4, "unclean")),
    ("never confirmed", owner(), volume(boot_id="boot-0", intact=True, epoch=0), EQUAL, 1.0, Fresh(4, "unclean")),
    ("released, and not where it was", owner(state="released"), INTACT, AHEAD, 1.0, Fresh(4, "move")),
    ("somebody took it meanwhile", owner(epoch=4, data_epoch=4), INTACT, EQUAL, 1.0, Fresh(5, "unclean")),
    ("the machine did not go down", owner(), volume(intact=True), BEHIND, 1.0, Fresh(4, "failover")),
    ("claimed to be carried, and no more than that", CARRYING, INTACT, AHEAD, 1.0, Fresh(5, "unclean", carried=True)),
    ("its data is behind by now", CARRYING, INTACT, BEHIND, 1.0, Fresh(5, "unclean")),
    ("its positions are not known", CARRYING, INTACT, None, 1.0, Fresh(5, "unclean")),
    ("nobody accepts a loss any more", CARRYING, INTACT, AHEAD, 0.0, Fresh(5, "unclean")),
    ("it was carried, and ran", CARRYING, volume(epoch=0, boot_id="boot-0", intact=True), EQUAL, 1.0,
     Fresh(5, "unclean")),
    ("claimed since to be restored", CARRYING.model_copy(update={"epoch": 5}), INTACT, AHEAD, 1.0,
     Fresh(6, "unclean")),
    ("claimed since by another node", CARRYING.model_copy(update={"node": "n2", "carried": 4, "state": "released"}),
     INTACT, AHEAD, 1.0, Fresh(5, "move")),
    ("released since", CARRYING.model_copy(update={"state": "released"}), INTACT, AHEAD, 1.0, Fresh(5, "move")),
    ("its epoch is over, though the machine did not go down", CARRYING, volume(intact=True), EQUAL, 1.0,
     Fresh(5, "failover")),
    ("others wrote into its prefix", CARRYING, volume(foreign=True), BEHIND, 0.0,
     Fresh(5, "failover", carried=True)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("why", "record", "facts", "positions", "rpo_s", "expected"), AFTER_A_POWER_CUT,
    ids=[row[0] for row in AFTER_A_POWER_CUT],
)  # fmt: skip
def test_after_a_power_cut_a_volume_goes_on_under_a_new_epoch_if_it_misses_nothing(
    why: str, record: Owner, facts: VolumeFacts, positions: dict[str, Position], rpo_s: float, expected: Fresh
) -> None:
    assert decide(ME, record, facts, positions, None, rpo_s) == expected


@pytest.mark.parametrize(
    ("why", "record", "facts", "positions", "restore", "expected"), DECIDE, ids=[row[0] for row in DECIDE]
)
def test_the_epoch_stays_only_on_a_volume_that_holds_all_of_it(
    why: str,
    record: Owner | None,
    facts: VolumeFacts | None,
    positions: dict[str, Position] | None,
    restore: Restore | None,
    expected: Continue | Fresh,
) -> None:
    assert decide(ME, record, facts, positions, restore) == expected
