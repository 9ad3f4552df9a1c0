"""A program that makes pairs of containers on the machine that it runs in: told by a line of JSON, ready when it says
so, begun by the next line; it tells after how many seconds each pair answered."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from node.bucket.spec import TenantSpec
from tests.bench.peer import Peer
from tests.bench.stage import side_by_side


def main() -> None:
    """Prepare, wait, make them, tell, and leave nothing."""
    told = json.loads(sys.stdin.readline())
    box = SimpleNamespace(
        fleet_name=told["fleet_name"], state=Path(told["state"]), env={"FLEET_S3_ENDPOINT": told["endpoint"]}
    )
    keys = SimpleNamespace(access_key=told["keys"][0], secret_key=told["keys"][1])
    minio, engine = SimpleNamespace(credentials=keys), SimpleNamespace(host=told["host"])
    stage = SimpleNamespace(engine=engine, box=box, minio=minio, bucket=told["bucket"])
    peer = Peer(cast("Any", stage), box.state / "peer")
    spec = TenantSpec.model_validate_json(json.dumps(told["spec"]))
    try:
        pairs = [peer.pair(f"pair-{n}", spec) for n in range(told["count"])]
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        begun, took = time.monotonic(), []

        def up(number: int) -> None:
            peer.up(pairs[number], at_once=False)
            took.append(time.monotonic() - begun)

        side_by_side(up, list(range(len(pairs))), told["at_once"])
        sys.stdout.write(json.dumps(took) + "\n")
        sys.stdout.flush()
        side_by_side(lambda pair: peer.down(pair, at_once=True), pairs, 8)
    finally:
        peer.close()


if __name__ == "__main__":
    main()
