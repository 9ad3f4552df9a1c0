"""More than the worker takes on at once, and the end of a worker that is at work."""

import contextlib
import socket

from node.worker.pressure import LIMITS


def stream(worker, run_id):
    """A connection that follows a run, and the status it was answered with."""
    connection = socket.create_connection(("127.0.0.1", worker.client.base_url.port), timeout=60)
    connection.sendall(f"GET /v1/runs/{run_id}/events HTTP/1.1\r\nHost: worker\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer and (part := connection.recv(4096)):
        answer += part
    return connection, answer


def test_who_is_one_too_many_is_told_to_come_back_and_the_others_are_served(worker):
    worker.start()
    worker.run("approval", id="a")
    with contextlib.ExitStack() as open_streams:
        streams = []
        for _ in range(LIMITS["stream"]):
            connection, answer = stream(worker, "a")
            open_streams.enter_context(connection)
            assert answer.startswith(b"HTTP/1.1 200")
            streams.append(connection)
        for _ in range(3):
            connection, answer = stream(worker, "a")
            connection.close()
            assert answer.startswith(b"HTTP/1.1 429")
            assert b"retry-after: 1" in answer.lower()
        assert worker.get("/readyz").status_code == 200
        assert worker.run("total", [1, 2, 3], id="t").status_code == 201
        assert worker.get("/v1/runs/t/result?wait=30s").json()["result"] == 6
        assert 'worker_refused_requests_total{reason="stream"} 3' in worker.get("/metrics").text
        streams[0].close()

        def served_again():
            connection, answer = stream(worker, "a")
            connection.close()
            return answer.startswith(b"HTTP/1.1 200")

        worker.until(served_again)


def executions(worker, gate):
    marks = worker.data / f"{gate}.executions"
    return marks.read_text() if marks.exists() else ""


def test_an_activity_that_ends_in_time_is_recorded_before_the_worker_ends(worker):
    worker.start()
    worker.run("gated", "gate", id="g")
    worker.until(lambda: executions(worker, "gate"))
    worker.process.terminate()
    (worker.data / "gate").touch()
    assert worker.process.wait(60) == 0
    worker.start()
    assert worker.get("/v1/runs/g/result?wait=30s").json()["result"] == 3
    assert executions(worker, "gate") == "x"


def test_an_activity_that_does_not_end_in_time_is_handed_back_and_runs_again(worker):
    worker.start()
    worker.run("gated", "gate", id="g")
    worker.until(lambda: executions(worker, "gate"))
    assert worker.stop() == 0
    worker.start()
    worker.until(lambda: executions(worker, "gate") == "xx")
    (worker.data / "gate").touch()
    assert worker.get("/v1/runs/g/result?wait=30s").json()["result"] == 3


def test_threads_lost_to_calls_that_nobody_waits_for_are_counted(worker):
    worker.start()
    assert "worker_lost_threads 0" in worker.get("/metrics").text
