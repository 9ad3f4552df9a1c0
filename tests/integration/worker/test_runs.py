"""Runs over HTTP beyond start and result: search, pages, streams, queries, pause, fork, termination."""

import json
import threading

import pytest


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    from pathlib import Path

    from tests.integration.worker.conftest import Worker

    worker = Worker(tmp_path_factory.mktemp("runs"), Path(__file__).parent / "tenant").start()
    yield worker
    worker.kill()


def start(served, workflow, id, **more):
    answer = served.post("/v1/runs", {"workflow": workflow, "id": id, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


def ended(served, id):
    return served.get(f"/v1/runs/{id}/result?wait=30s").json()


def frames(text):
    """The events of a stream, as (id, event, data)."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "data" in fields:
            found.append((fields.get("id"), fields["event"], json.loads(fields["data"])))
    return found


def test_runs_are_found_by_attributes_times_and_states(served):
    start(served, "approval", "s1", attributes={"customer": "ann", "amount": 5})
    start(served, "total", "s2", input=[1], attributes={"customer": "ann", "amount": 7})
    ended(served, "s2")

    def found(**query):
        answer = served.get("/v1/runs", params=query)
        assert answer.status_code == 200, answer.text
        return sorted(run["id"] for run in answer.json()["runs"] if run["id"].startswith("s"))

    assert found(attribute="customer=ann") == ["s1", "s2"]
    assert found(attribute="amount=7") == ["s2"]
    assert found(attribute="customer=ann", state="running") == ["s1"]
    created = served.get("/v1/runs/s2").json()
    assert created["attributes"] == {"customer": "ann", "amount": 7}
    assert found(created_after=created["created_at"]) == ["s2"]
    assert found(closed_before=created["closed_at"]) == []
    assert found(workflow="approval") == ["s1"]
    for wrong in ("attribute=x", "attribute=1a=x", "created_after=yesterday", "created_after=2026-01-01", "paused=1"):
        answer = served.get(f"/v1/runs?{wrong}")
        assert (answer.status_code, answer.json()["field"]) == (422, wrong.split("=")[0])


def test_a_history_comes_in_pages(served):
    start(served, "total", "h", input=list(range(5)))
    ended(served, "h")
    whole = served.get("/v1/runs/h/history").json()
    assert whole["cursor"] is None
    events, cursor = [], None
    while True:
        page = served.get("/v1/runs/h/history", params={"limit": 3} | ({"cursor": cursor} if cursor else {})).json()
        assert len(page["events"]) <= 3
        events += page["events"]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert events == whole["events"]


def test_a_run_is_streamed_to_its_end_and_from_where_a_client_was(served):
    start(served, "approval", "e")
    with served.client.stream("GET", "/v1/runs/e/events") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        signal = threading.Timer(0.2, lambda: served.post("/v1/runs/e/signals/approved", "yes"))
        signal.start()
        streamed = list(answer.iter_text())
        signal.join()
    found = frames("".join(streamed))
    assert [event for _, event, _ in found] == ["started", "signal_awaited", "signal_received", "completed", "end"]
    assert [data for _, _, data in found][:-1] == served.history("e")
    again = frames(served.get("/v1/runs/e/events", headers={"last-event-id": "2"}).text)
    assert again == found[2:]
    assert served.get("/v1/runs/nosuch/events").status_code == 404


def test_a_run_that_goes_on_as_new_is_streamed_through_each_of_its_logs(served):
    start(served, "rounds", "n", input=2)
    with served.client.stream("GET", "/v1/runs/n/events") as answer:
        goes = [threading.Timer(0.2 * n, lambda: served.post("/v1/runs/n/signals/go")) for n in range(3)]
        for go in goes:
            go.start()
        found = frames("".join(answer.iter_text()))
        for go in goes:
            go.join()
    assert [data for _, _, data in found][:-1] == [*served.history("n~1"), *served.history("n~2"), *served.history("n")]
    ids = [id for id, _, _ in found][:-1]
    assert len(set(ids)) == len(ids)
    assert ids[:4] == ["1", "2", "3", "4"]
    for last in ("2", ids[5], ids[-2], ids[-1]):
        again = frames(served.get("/v1/runs/n/events", headers={"last-event-id": last}).text)
        assert again == found[ids.index(last) + 1 :]
    newest = [frame for frame in found if frame[0] is None or frame[0].startswith("2.")]
    for none in ("", "x", "1." + "9" * 20):
        assert frames(served.get("/v1/runs/n/events", headers={"last-event-id": none}).text) == newest


def test_a_run_is_paused_and_goes_on(served):
    start(served, "approval", "p")
    assert served.post("/v1/runs/p/pause").status_code == 202
    assert served.get("/v1/runs/p").json()["paused"] is True
    served.post("/v1/runs/p/signals/approved", 1)
    assert served.get("/v1/runs/p").json()["state"] == "running"
    assert served.post("/v1/runs/p/resume").status_code == 202
    assert ended(served, "p")["result"] == 1


def test_the_code_of_a_run_is_asked(served):
    start(served, "asked", "q")
    assert served.post("/v1/runs/q/queries/double", {"args": [21]}).json() == {"answer": 42}
    assert served.post("/v1/runs/q/queries/nosuch").status_code == 404


def test_a_run_is_terminated_with_a_reason(served):
    start(served, "approval", "t")
    assert served.post("/v1/runs/t/terminate", {"reason": "in the way"}).status_code == 202
    shown = served.get("/v1/runs/t").json()
    assert (shown["state"], shown["error"]["message"]) == ("terminated", "in the way")
    assert served.post("/v1/runs/t/terminate").status_code == 409


def test_a_run_is_forked_before_a_step(served):
    start(served, "total", "f", input=[1, 2, 3])
    ended(served, "f")
    forked = served.post("/v1/runs/f/fork", {"step": 2, "id": "f2"})
    assert (forked.status_code, forked.json()["forked_from"]) == (201, "f")
    assert ended(served, "f2")["result"] == 6
    assert served.post("/v1/runs/f/fork", {"step": 2, "id": "f2"}).status_code == 200
    refused = served.post("/v1/runs/f/fork", {"seq": 999})
    assert (refused.status_code, refused.json()["field"]) == (409, "seq")


def test_what_happens_when_an_id_is_taken_is_said_in_the_start(served):
    start(served, "approval", "c")
    body = {"workflow": "approval", "id": "c", "conflict": "terminate_existing"}
    assert served.post("/v1/runs", body).status_code == 201
    assert served.get("/v1/runs/c~1").json()["state"] == "terminated"
    assert served.post("/v1/runs", {**body, "conflict": "reject_duplicate"}).status_code == 409
    refused = served.post("/v1/runs", {**body, "conflict": "whatever"})
    assert (refused.status_code, refused.json()["field"]) == (422, "conflict")


def test_queues_are_made_changed_and_seen(served):
    for n in range(3):
        start(served, "approval", f"k{n}", queue={"name": "mail", "priority": -n})
    served.until(lambda: served.get("/v1/runs", params={"queue": "mail", "state": "queued"}).json()["runs"] != [])
    served.until(lambda: depth(served, "mail") == 2)
    assert 'worker_queue_depth{queue="mail"} 2' in served.get("/metrics").text
    changed = served.client.put("/v1/queues/mail", json={"concurrency": 3, "rate": {"limit": 100, "period_s": 1}})
    assert (changed.status_code, changed.json()["concurrency"]) == (200, 3)
    served.until(lambda: depth(served, "mail") == 0)
    refused = served.post("/v1/runs", {"workflow": "approval", "queue": {"name": "nosuch"}})
    assert (refused.status_code, refused.json()["field"]) == (422, "queue")
    wrong = served.client.put("/v1/queues/mail", json={"concurrency": 0})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "concurrency")


def depth(served, name):
    return {queue["name"]: queue["depth"] for queue in served.get("/v1/queues").json()["queues"]}[name]


def test_schedules_are_made_paused_triggered_and_removed(served):
    body = {"workflow": "total", "cron": "0 3 * * *", "time_zone": "Europe/Vienna", "input": [1, 2]}
    made = served.client.put("/v1/schedules/nightly", json=body)
    assert (made.status_code, made.json()["next_at"].endswith(":00:00.000Z")) == (201, True)
    assert served.client.put("/v1/schedules/nightly", json=body).status_code == 200
    run = served.post("/v1/schedules/nightly/trigger").json()["id"]
    assert ended(served, run)["result"] == 3
    assert [r["id"] for r in served.get("/v1/runs?schedule=nightly").json()["runs"]] == [run]
    assert served.post("/v1/schedules/nightly/pause").json()["next_at"] is None
    assert served.post("/v1/schedules/nightly/resume").json()["paused"] is False
    assert [s["id"] for s in served.get("/v1/schedules").json()["schedules"]] == ["nightly"]
    for wrong, field in (
        ({**body, "cron": "61 * * * *"}, "cron"),
        ({**body, "time_zone": "Mars"}, "time_zone"),
        ({**body, "input": "x"}, "input"),
        ({**body, "overlap": "x"}, "overlap"),
    ):
        refused = served.client.put("/v1/schedules/wrong", json=wrong)
        assert (refused.status_code, refused.json()["field"]) == (422, field)
    assert served.client.delete("/v1/schedules/nightly").status_code == 200
    assert served.get("/v1/schedules/nightly").status_code == 404


def test_a_stream_ends_when_the_worker_stops(worker):
    worker.start()
    start(worker, "approval", "e")
    with worker.client.stream("GET", "/v1/runs/e/events") as answer:
        chunks = answer.iter_text()
        next(chunks)
        stopped = threading.Thread(target=worker.stop)
        stopped.start()
        list(chunks)
        stopped.join()
    assert worker.process.returncode == 0


def test_the_node_is_told_of_the_next_due_time(worker, door, tmp_path):
    worker.door = tmp_path / "agent.sock"
    worker.start()
    worker.client.put("/v1/schedules/yearly", json={"workflow": "asked", "cron": "@yearly"})
    due = worker.get("/v1/schedules/yearly").json()["next_at"]
    worker.until(lambda: door.wakes and door.wakes[-1] is not None)
    from datetime import datetime

    assert door.wakes[-1] == datetime.fromisoformat(due).timestamp()
    worker.client.delete("/v1/schedules/yearly")
    worker.until(lambda: door.wakes[-1] is None)
