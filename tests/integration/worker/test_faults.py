"""The worker's deaths, its node's silences, and what it refuses to start with."""

import socket
import threading

import apsw
import pytest

from node.worker.door import BACKOFF_MAX_S


def completed_steps(worker, run_id):
    return [event["body"]["id"] for event in worker.history(run_id) if event["kind"] == "activity_completed"]


def test_a_worker_killed_in_the_middle_of_a_run_goes_on_behind_its_last_finished_step(worker):
    worker.start()
    worker.run("gated", "gate", id="g")
    marks = worker.data / "gate.executions"
    worker.until(lambda: marks.exists() and marks.read_text() == "x")  # there, and written
    worker.kill()
    worker.start()
    worker.until(lambda: (worker.data / "gate.executions").read_text() == "xx")
    (worker.data / "gate").touch()
    assert worker.get("/v1/runs/g/result?wait=30s").json()["result"] == 3
    assert completed_steps(worker, "g") == [1, 2, 3]


def test_what_was_answered_before_a_kill_is_there_after_it(worker):
    worker.start()
    answered = [
        f"run-{number}" for number in range(50) if worker.run("approval", id=f"run-{number}").status_code == 201
    ]
    worker.kill()
    worker.start()
    assert {run["id"] for run in worker.get("/v1/runs?limit=200").json()["runs"]} == set(answered)
    assert len(answered) == 50


def test_nothing_is_answered_before_the_node_has_confirmed_it(worker, door, tmp_path):
    worker.door, worker.rpo = tmp_path / "agent.sock", "0"
    worker.start()
    door.open.clear()
    answers = []
    asking = threading.Thread(target=lambda: answers.append(worker.run("approval", id="r").status_code))
    asking.start()
    worker.until(lambda: door.calls > 0)
    assert not answers
    door.open.set()
    asking.join()
    assert answers == [201]


def test_no_step_is_run_before_what_it_was_computed_from_is_confirmed(worker, door, tmp_path):
    worker.door, worker.rpo = tmp_path / "agent.sock", "0"
    worker.start()
    door.open.clear()
    asking = threading.Thread(target=worker.run, args=("gated", "gate", "g"))
    asking.start()
    worker.until(lambda: door.calls > 0)
    assert worker.get("/metrics").text.count("worker_steps_total 0\n") == 1
    door.open.set()
    asking.join()
    worker.until((worker.data / "gate.executions").exists)


def test_a_node_that_says_unknown_is_asked_until_it_is_definite(worker, door, tmp_path):
    worker.door, worker.rpo = tmp_path / "agent.sock", "0"
    door.status = 503
    worker.start()
    answers = []
    asking = threading.Thread(target=lambda: answers.append(worker.run("approval", id="r").status_code))
    asking.start()
    worker.until(lambda: door.calls >= 3)
    assert not answers
    door.status = 200
    asking.join(BACKOFF_MAX_S + 30)
    assert answers == [201]


def test_the_tenants_own_write_is_acknowledged_only_when_confirmed(worker, door, tmp_path):
    worker.door, worker.rpo = tmp_path / "agent.sock", "0"
    worker.start()
    assert worker.client.put("/stored").status_code == 200
    door.open.clear()
    unknown = worker.client.put("/stored")
    assert (unknown.status_code, unknown.json()["retryable"]) == (503, True)
    assert "retry-after" in unknown.headers


def test_with_an_rpo_of_a_second_an_answer_needs_no_confirmation(worker, door, tmp_path):
    worker.door, worker.rpo = tmp_path / "agent.sock", "1s"
    door.open.clear()
    worker.start()
    assert worker.run("approval", id="r").status_code == 201
    assert worker.client.put("/stored").status_code == 200
    assert door.calls == 0


def test_sigterm_finishes_the_requests_that_are_in_flight_and_ends_with_0(worker):
    worker.start()
    answers = []
    asking = threading.Thread(target=lambda: answers.append(worker.get("/slow").text))
    asking.start()
    worker.until((worker.data / "slow.asked").exists)
    worker.process.terminate()
    (worker.data / "slow").touch()
    assert worker.process.wait(60) == 0
    asking.join()
    assert answers == ["slow, but done"]


def test_sigterm_answers_long_polls_at_once(worker):
    worker.start()
    worker.run("approval", id="a")
    with socket.create_connection(("127.0.0.1", worker.client.base_url.port)) as poll:
        poll.sendall(b"GET /v1/runs/a/result?wait=60s HTTP/1.1\r\nHost: worker\r\n\r\n")
        assert worker.get("/healthz").status_code == 200  # asked later and answered: the poll is in flight
        assert worker.stop(40) == 0
        poll.settimeout(30)
        assert poll.recv(4096).startswith(b"HTTP/1.1 202")


def test_where_a_node_streams_the_files_nothing_is_checkpointed_not_even_at_the_end(worker, door, tmp_path):
    worker.door, worker.rpo = tmp_path / "agent.sock", "0"
    worker.start()
    worker.run("total", [1, 2, 3], id="t")
    worker.get("/v1/runs/t/result?wait=30s")
    before = (worker.data / "workflow.db").stat().st_size
    assert worker.stop() == 0
    assert (worker.data / "workflow.db").stat().st_size == before
    assert (worker.data / "workflow.db-wal").stat().st_size > 0


def test_a_log_of_a_newer_version_is_refused_and_left_as_it_is(worker):
    worker.start()
    worker.stop()
    log = apsw.Connection(str(worker.data / "workflow.db"))
    log.execute("PRAGMA user_version=999")
    log.close()
    worker.start(ready=False)
    assert worker.process.wait(60) == 1
    assert "schema 999" in worker.log.read_text()


def test_two_workers_never_serve_one_log(worker, tmp_path):
    worker.start()
    second = type(worker)(tmp_path, worker.app)
    second.start(ready=False)
    assert second.process.wait(60) == 1
    assert "served by another process" in worker.log.read_text()
    assert worker.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, "has no app.py"),
        ("import nosuchmodule", "nosuchmodule"),
        ("x = 1", "declares neither a @workflow nor routes"),
        (
            "from node.workflow import workflow\n@workflow\ndef sync(ctx):\n    pass",
            "must be `async def`",
        ),
    ],
)
def test_code_that_cannot_be_served_ends_the_worker_with_the_reason(worker, tmp_path, code, words):
    worker.app = tmp_path / "app"
    worker.app.mkdir()
    if code is not None:
        (worker.app / "app.py").write_text(code)
    worker.start(ready=False)
    assert worker.process.wait(60) == 1
    assert words in worker.log.read_text()


def test_a_wrong_setting_ends_the_worker_with_its_name(worker):
    worker.rpo = "soon"
    worker.start(ready=False)
    assert worker.process.wait(60) == 2
    assert "NODE_RPO" in worker.log.read_text()


def test_dependencies_are_found_in_the_vendor_folder(worker, tmp_path):
    worker.app = tmp_path / "app"
    (worker.app / "vendor" / "greeting").mkdir(parents=True)
    (worker.app / "vendor" / "greeting" / "__init__.py").write_text("WORD = 'hello'")
    (worker.app / "app.py").write_text(
        "import greeting\nfrom node.workflow import workflow\n"
        "@workflow\nasync def greet(ctx):\n    return greeting.WORD\n"
    )
    worker.start()
    worker.run("greet", id="g")
    assert worker.get("/v1/runs/g/result?wait=30s").json()["result"] == "hello"


ASGI = """
from contextlib import asynccontextmanager
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

@asynccontextmanager
async def lifespan(app):
    app.state.word = "{word}"
    print("tenant started", flush=True)
    {trouble}
    yield
    print("tenant stopped", flush=True)

async def word(request):
    return PlainTextResponse(request.app.state.word)

asgi = Starlette(routes=[Route("/word", word)], lifespan=lifespan)
"""


def test_a_whole_application_may_be_served_with_its_lifespan(worker, tmp_path):
    worker.app = tmp_path / "app"
    worker.app.mkdir()
    (worker.app / "app.py").write_text(ASGI.format(word="hello", trouble="pass"))
    worker.start()
    assert worker.get("/word").text == "hello"
    assert worker.stop() == 0
    assert "tenant stopped" in worker.log.read_text()


def test_an_application_that_does_not_start_ends_the_worker(worker, tmp_path):
    worker.app = tmp_path / "app"
    worker.app.mkdir()
    (worker.app / "app.py").write_text(ASGI.format(word="hello", trouble="raise RuntimeError('no luck')"))
    worker.start(ready=False)
    assert worker.process.wait(60) != 0
    assert "no luck" in worker.log.read_text()


def test_in_development_a_connection_past_open_database_is_warned_of(worker, tmp_path):
    worker.app = tmp_path / "app"
    worker.app.mkdir()
    (worker.app / "app.py").write_text(
        "import os, sqlite3\nfrom node.workflow import workflow\n"
        "sqlite3.connect(os.environ['NODE_DATA'] + '/mine.db')\n"
        "@workflow\nasync def nothing(ctx):\n    pass\n"
    )
    worker.start()
    assert "mine.db past open_database()" in worker.log.read_text()
