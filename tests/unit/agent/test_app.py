"""What the agent's composition root makes by itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from node.agent.app import SAME_S, replica_target
from node.bucket import s3


@dataclass
class Chain:
    """A location whose credentials are others each time."""

    bucket: str = "b"
    prefix: str = "p/"
    endpoint: str = "http://h"
    region: str = "r"
    asked: list[int] = field(default_factory=list)

    def lasting_credentials(self) -> s3.Credentials:
        self.asked.append(1)
        return s3.Credentials(f"key-{len(self.asked)}", "secret", None)


def test_tenants_that_come_up_together_share_credentials_and_later_ones_get_new_ones() -> None:
    now, chain = [100.0], Chain()
    target = replica_target(cast("Any", chain), lambda: now[0])
    assert target.credentials("data/a/").access_key == "key-1"
    assert target.credentials("data/b/").access_key == "key-1"
    now[0] += SAME_S
    assert target.credentials("data/a/").access_key == "key-2"
    assert len(chain.asked) == 2
