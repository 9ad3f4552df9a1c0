"""The main job: a tenant comes up, works, is killed, loses its node, and comes back from the bucket."""

from __future__ import annotations

import datetime
import json
import shutil
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.box import DOCSEARCH, Box

DOCUMENTS = Path("/usr/share/doc")
BATCH = 5


def pack(path: Path, limit: int) -> int:
    """An archive of this machine's documents, plain and gzipped; answers how many."""
    count = 0
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for file in sorted(DOCUMENTS.rglob("*")):
            if count < limit and file.is_file() and not file.is_symlink() and file.stat().st_size < 1 << 20:
                tar.add(file, str(file.relative_to(DOCUMENTS)))
                count += 1
    return count


def finished(box: Box, tenant: str, run: str) -> dict[int, Any]:
    """Finished steps by their place in the log; empty while the tenant is away."""
    done = box.fleet("history", tenant, run, "-o", "json", check=False)
    return {e["seq"]: e for e in done.json if e["kind"] == "activity_completed"} if done.code == 0 else {}


def ingest(box: Box, tenant: str, tmp_path: Path, documents: int) -> int:
    """Upload documents and start their ingestion; answers how many there are."""
    archive = tmp_path / "documents.tar.gz"
    count = pack(archive, documents)
    status, body = box.tenant(tenant, "PUT", "/documents/archive", archive.read_bytes())
    assert status == 200, body
    assert body["stored"] == count
    box.fleet("run", tenant, "ingest", "--id", "job", "--input", json.dumps({"batch_documents": BATCH}))
    return count


def result(box: Box, tenant: str) -> Any:
    """Wait for the job's result."""
    order = json.dumps({"batch_documents": BATCH})
    return box.json("run", tenant, "ingest", "--id", "job", "--input", order, "--wait")["result"]


def up(box: Box, tenant: str, *more: str) -> dict[str, Any]:
    """A docsearch tenant."""
    return dict(box.json("up", tenant, "--app", str(DOCSEARCH), "--db", "docs.db", "--memory", "256m", *more))


def test_a_job_survives_its_worker_and_its_node_and_repeats_no_finished_step(box: Box, tmp_path: Path) -> None:
    view = up(box, "library", "--rpo", "0")
    assert view["state"] == "running"
    assert view["epoch"] == 1
    count = ingest(box, "library", tmp_path, 400)

    box.eventually(lambda: len(finished(box, "library", "job")) > 3, "some steps")
    before = finished(box, "library", "job")
    box.kill_container("library")
    box.eventually(lambda: len(finished(box, "library", "job")) > len(before), "steps after the worker's death")
    then = finished(box, "library", "job")
    assert {seq: then[seq] for seq in before} == before

    box.lose_node("library")
    box.eventually(lambda: bool(finished(box, "library", "job")), "the tenant back from the bucket", timeout_s=120)
    back = finished(box, "library", "job")
    assert {seq: back.get(seq) for seq in then} == then
    assert box.wait_state("library", "running")["epoch"] == 2

    ended = result(box, "library")
    assert ended["indexed"] + ended["skipped"] == count
    final = finished(box, "library", "job")
    assert {seq: final[seq] for seq in back} == back
    status, stats = box.tenant("library", "GET", "/stats")
    assert status == 200
    assert stats["indexed"] + stats["skipped"] == count
    assert stats["waiting"] == 0
    status, found = box.tenant("library", "GET", "/search?q=copyright&limit=5")
    assert status == 200
    assert found["results"]


def test_down_and_up_again_goes_on_with_the_same_volume_and_epoch(box: Box, tmp_path: Path) -> None:
    up(box, "calm")
    count = ingest(box, "calm", tmp_path, 60)
    result(box, "calm")
    down = box.json("down", "calm")
    assert down["state"] == "released"
    assert box.tenant("calm", "GET", "/stats")[0] == 503
    again = box.json("up", "calm")
    assert (again["state"], again["epoch"]) == ("running", 1)
    assert box.tenant("calm", "GET", "/stats")[1]["indexed"] <= count
    assert box.json("down", "calm")["state"] == "released"


def test_down_and_up_on_a_lost_volume_restores_from_the_bucket(box: Box, tmp_path: Path) -> None:
    up(box, "moved")
    count = ingest(box, "moved", tmp_path, 60)
    result(box, "moved")
    box.fleet("down", "moved")
    volume = box.state / "t" / "moved"
    box.unmount(volume)
    shutil.rmtree(volume)
    again = box.json("up", "moved")
    assert (again["state"], again["epoch"]) == ("running", 2)
    stats = box.tenant("moved", "GET", "/stats")[1]
    assert stats["indexed"] + stats["skipped"] == count


def test_a_restore_to_an_earlier_moment_beside_and_in_place(box: Box, tmp_path: Path) -> None:
    up(box, "past", "--rpo", "0")
    first = ingest(box, "past", tmp_path, 20)
    result(box, "past")
    box.eventually(lambda: len(box.json("points", "past")) > 0, "points")
    at = box.json("points", "past")[-1]["at"]
    archive = tmp_path / "more.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(__file__, "later.txt")
    assert box.tenant("past", "PUT", "/documents/archive", archive.read_bytes())[0] == 200
    box.fleet("run", "past", "ingest", "--id", "later", "--wait")
    assert total(box, "past") == first + 1

    moment = datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat()
    view = box.json("restore", "past", "--at", moment, "--as", "copy")
    assert view["state"] == "running"
    assert total(box, "copy") == first
    assert total(box, "past") == first + 1
    again = box.json("restore", "past", "--at", moment, "-y")
    assert again["state"] == "running"
    assert again["epoch"] > 1
    assert total(box, "past") == first


def total(box: Box, tenant: str) -> int:
    """Documents that a tenant has indexed or skipped."""
    stats = box.tenant(tenant, "GET", "/stats")[1]
    return int(stats["indexed"] + stats["skipped"])


def test_purge_deletes_the_data_and_the_name_can_be_born_again(box: Box) -> None:
    up(box, "gone")
    assert box.json("down", "gone", "--purge", "--now", "-y")["state"] == "purged"
    box.eventually(lambda: not box.objects("data/gone/"), "no object of the tenant")
    again = up(box, "gone")
    assert again["state"] == "running"
    assert again["epoch"] == 2
    assert total(box, "gone") == 0


@pytest.mark.parametrize("rpo", ["0", "1s"])
def test_a_planned_restart_loses_no_request(box: Box, rpo: str) -> None:
    name = f"steady{rpo}"
    up(box, name, "--rpo", rpo)
    answers: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answers.append(box.tenant(name, "GET", "/stats")[0])

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        view = box.json("restart", name)
    finally:
        stop.set()
        asker.join()
    assert view["state"] == "running"
    assert len(answers) > 3
    assert set(answers) == {200}
