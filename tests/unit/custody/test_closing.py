"""What a free record becomes when a tenant that nothing runs of is to be down, or gone."""

from __future__ import annotations

import pytest

from node.agent.custody.claim import Me, overtaken
from node.agent.custody.release import To, _closing
from node.bucket.records import Owner, OwnerState

ME = Me("one", 3, "boot")


def owner(state: OwnerState) -> Owner:
    return Owner(
        nonce="n", tenant="acme", epoch=2, node="one", session=3, state=state, data_epoch=2, observed_generation=5
    )


@pytest.mark.parametrize(
    ("state", "to", "generation", "becomes"),
    [
        ("running", "released", 6, "released"),
        ("released", "released", 5, None),
        ("released", "purged", 6, "purged"),
        ("purged", "released", 6, None),
        ("lost", "released", 6, None),
    ],
)
def test_a_free_record_is_closed(state: OwnerState, to: To, generation: int, becomes: str | None) -> None:
    assert _closing(ME, owner(state), to, generation).get("state") == becomes


@pytest.mark.parametrize("to", ["released", "purged"])
def test_an_overtaken_wish_closes_nothing(to: To) -> None:
    assert _closing(ME, owner("running"), to, 4) == {}


@pytest.mark.parametrize(
    ("state", "generation", "refused"), [("purged", 4, True), ("purged", 5, False), ("released", 4, False)]
)
def test_what_a_purge_has_overtaken_is_not_brought_up(state: OwnerState, generation: int, refused: bool) -> None:
    """An agent remembers what it was told before its machine went down; another node was told of the purge."""
    assert (overtaken(owner(state), generation) is not None) is refused
