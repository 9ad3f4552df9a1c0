"""Every command as a user types it, on a real fleet: what it does, what it prints where, and how it ends."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.box import ROOT, Box, running
from tests.testbed.engine import Engine
from tests.testbed.process import FLEET
from tests.testbed.stores import StoreServer

APPROVALS = ROOT / "tests/e2e/apps/approvals"
LOOKER = "a-token-that-may-only-look"


@pytest.fixture(scope="module")
def box(folder: Path, engine: Engine, images: str, minio: StoreServer) -> Iterator[Box]:
    """A fleet with a read-only token besides its own."""
    env = minio.environment(minio.new_bucket(), "fleet")
    with running(Box(folder, engine.host, env, FLEET_TOKEN_READONLY=LOOKER)) as started:
        yield started


@pytest.fixture(scope="module")
def acme(box: Box) -> str:
    """A tenant that most of these commands are about."""
    box.fleet("up", "acme", "--app", str(APPROVALS), "--label", "team=blue", "--label", "tier=gold")
    return "acme"


@pytest.fixture
def up_again(box: Box, acme: str) -> Iterator[str]:
    """The same, brought up again afterwards if a test took it down."""
    yield acme
    box.fleet("up", acme)


def lines(text: str) -> list[str]:
    """Lines that are not empty."""
    return [line for line in text.splitlines() if line.strip()]


# ---- up, down, restart


def test_a_dry_run_says_what_would_be_and_changes_nothing(box: Box) -> None:
    done = box.fleet("up", "planned", "--app", str(APPROVALS), "--rpo", "0", "--dry-run")
    assert "would be created" in done.err
    assert any("rpo" in line and "→ 0" in line for line in lines(done.out)), done.out
    assert box.fleet("status", "planned", check=False).code == 3
    said = box.fleet("up", "planned", "--app", str(APPROVALS), "--dry-run", "-o", "json").json
    assert (said["tenant"], said["creates"]) == ("planned", True)


def test_up_says_what_changed_once_and_shows_the_url(box: Box, acme: str) -> None:
    done = box.fleet("up", acme, "--env", "COLOUR=red")
    assert "env.COLOUR" in done.err
    assert lines(done.out) == [f"{acme}  running  {box.gateway}/t/{acme}/"]
    again = box.fleet("up", acme, "--env", "COLOUR=red")
    assert "env.COLOUR" not in again.err
    assert box.fleet("up", acme, "--env", "COLOUR=red", "--dry-run").out == "no change\n"
    removed = box.fleet("up", acme, "--env", "COLOUR=", "-o", "name")
    assert removed.out == f"{acme}\n"
    assert box.status(acme)["spec"]["env"] == {}


def test_what_needs_no_restart_restarts_nothing(box: Box, acme: str) -> None:
    before = box.docker("inspect", "-f", "{{.Id}} {{.State.StartedAt}}", box.container(acme))
    box.fleet("up", acme, "--retention", "2d", "--label", "note=x")
    assert box.docker("inspect", "-f", "{{.Id}} {{.State.StartedAt}}", box.container(acme)) == before
    box.fleet("up", acme, "--label", "note=")


def test_a_spec_from_a_file_may_name_the_folder_of_its_app(box: Box, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(f"app: {os.path.relpath(APPROVALS, tmp_path)}\nlabels: {{from: file}}\nlimits: {{memory: 96m}}\n")
    assert box.fleet("up", "filed", "-f", str(path), "-o", "json").json["state"] == "running"
    spec = box.status("filed")["spec"]
    assert (spec["labels"], spec["limits"]["memory"]) == ({"from": "file"}, 96 << 20)
    spec["labels"] = {"from": "stdin"}
    box.fleet("up", "filed", "-f", "-", stdin=json.dumps(spec))
    assert box.status("filed")["spec"]["labels"] == {"from": "stdin"}
    mixed = box.fleet("up", "filed", "-f", str(path), "--rpo", "0", check=False)
    assert (mixed.code, "mixed" in mixed.err) == (2, True)
    box.fleet("down", "filed", "--purge", "--now", "-y")
    assert "filed" not in box.fleet("ls", "-o", "name").out.split()


def test_several_tenants_by_label_or_all(box: Box, up_again: str) -> None:
    box.fleet("up", "second", "--app", str(APPROVALS), "--label", "team=blue", "--label", "tier=iron")
    assert box.fleet("ls", "-l", "team=blue", "-o", "name").out.split() == ["acme", "second"]
    assert box.fleet("ls", "-l", "team=blue", "-l", "tier=iron", "-o", "name").out.split() == ["second"]
    assert box.fleet("ls", "-l", "team=red", "-o", "name").out == ""
    assert box.fleet("down", "-l", "team=red", check=False).code == 3
    assert sorted(box.fleet("restart", "--all", "-o", "name").out.split()) == ["acme", "second"]
    assert {v["state"] for v in box.json("down", "-l", "team=blue")} == {"released"}
    both = box.fleet("down", "--all", "second", check=False)
    assert (both.code, "one of them" in both.err) == (2, True)
    box.fleet("up", "second")
    assert box.json("down", "acme", "second", "acme")[1]["state"] == "released"
    box.fleet("down", "second", "--purge", "--now", "-y")


def test_a_name_alone_starts_what_is_stored(box: Box, acme: str) -> None:
    assert box.json("down", acme)["state"] == "released"
    assert box.tenant(acme, "GET", "/hello")[0] == 503
    assert box.fleet("runs", acme, check=False).code == 6
    assert box.json("down", acme)["state"] == "released", "safe to repeat"
    assert box.json("up", acme)["state"] == "running"
    assert box.tenant(acme, "GET", "/hello") == (200, {"hello": "world"})


def test_no_wait_returns_while_it_goes_on(box: Box, up_again: str) -> None:
    done = box.fleet("down", up_again, "--no-wait", "-o", "json")
    assert done.json["want"] == "down"
    box.wait_state(up_again, "released")


def test_without_progress_the_outcome_is_unknown_and_the_command_can_be_repeated(box: Box) -> None:
    code = "import time; time.sleep(600)"
    words = ("up", "slow", "--image", "fleet/worker:latest", "--db", "a.db", "--timeout", "1s", "--", "-c", code)
    done = box.fleet(*words, check=False)
    assert done.code == 4, done
    assert "fleet status slow" in done.err
    assert box.fleet("down", "slow", "--purge", "--now", "-y", "-q").err == ""


def test_purging_asks_and_where_nobody_can_be_asked_it_is_not_done(box: Box, acme: str) -> None:
    done = box.fleet("down", acme, "--purge", check=False, stdin="y\n")
    assert (done.code, "give -y" in done.err) == (2, True)
    assert box.fleet("down", acme, "--now", check=False).code == 2
    assert box.status(acme)["state"] == "running"


def test_a_change_that_does_not_get_healthy_is_taken_back(box: Box, acme: str, tmp_path: Path) -> None:
    app = box.status(acme)["spec"]["app"]
    (tmp_path / "app.py").write_text("raise RuntimeError('this version is broken')\n")
    done = box.fleet("up", acme, "--app", str(tmp_path), "-o", "json", check=False)
    assert done.code == 1, done
    assert "this version is broken" in done.err, "the last lines of its log are shown"
    assert done.json["type"] == "urn:fleet:rolled_back"
    view = box.status(acme)
    assert (view["state"], view["spec"]["app"], view["epoch"]) == ("running", app, 1)
    assert box.tenant(acme, "GET", "/hello")[0] == 200
    assert box.json("restart", acme)["state"] == "running", "what was taken back is no error of what comes later"


# ---- looking


def test_ls_and_status_show_the_same_in_every_form(box: Box, acme: str) -> None:
    header, *rows = lines(box.fleet("ls").out)
    assert header.split() == ["TENANT", "STATE", "NODE", "EPOCH", "LAG", "SINCE", "URL"]
    assert any(row.split()[:4] == [acme, "running", "one", "1"] for row in rows)
    assert acme in box.fleet("ls", "-o", "name").out.split()
    view = next(v for v in box.json("ls") if v["tenant"] == acme)
    assert box.status(acme)["generation"] == view["generation"]
    assert box.fleet("status", acme, "-o", "name").out == f"{acme}\n"
    shown = box.fleet("status", acme)
    assert shown.err == ""
    for part in ("running", f"{box.gateway}/t/{acme}/", "workflow.db", "last walk"):
        assert part in shown.out


def test_nodes_shows_the_machine(box: Box) -> None:
    assert box.fleet("nodes", "-o", "name").out == "one\n"
    assert box.json("nodes")[0]["state"] == "ready"
    assert lines(box.fleet("nodes").out)[1].split()[:2] == ["one", "ready"]


def test_logs_of_the_worker_and_of_its_sidecar(box: Box, acme: str) -> None:
    box.fleet("run", acme, "approve", "--id", "logged", "--input", '{"what": "a line in the log"}')
    box.eventually(lambda: "noted: a line in the log" in box.fleet("logs", acme).out, "the line")
    assert len(lines(box.fleet("logs", acme, "-n", "1").out)) == 1
    assert box.fleet("logs", acme, "-n", "0").out == ""
    assert "noted" not in box.fleet("logs", acme, "--since", "2100-01-01T00:00:00Z").out
    sidecar = box.fleet("logs", acme, "--sidecar").out
    assert sidecar
    assert "noted" not in sidecar


def _interruptible() -> None:
    """Ctrl-C works as in a terminal, also where this run was started in the background, which has it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Following:
    """A command that streams: what it printed so far, and how it ends when it is interrupted."""

    def __init__(self, box: Box, *words: str) -> None:
        pipe = subprocess.PIPE
        self._command = subprocess.Popen(
            [FLEET, *words], env=box.env, stdout=pipe, stderr=pipe, text=True, preexec_fn=_interruptible
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._command.stdout is not None
        self.lines.extend(iter(self._command.stdout.readline, ""))

    def interrupt(self) -> tuple[int, str]:
        """Ctrl-C; answers its exit code and what it said."""
        self._command.send_signal(signal.SIGINT)
        try:
            code = self._command.wait(90)
        finally:
            self._command.kill()
            self._reader.join()
        assert self._command.stderr is not None
        return code, self._command.stderr.read()


def test_a_log_is_followed_until_it_is_interrupted(box: Box, acme: str) -> None:
    following = Following(box, "logs", acme, "-f", "-n", "0")

    def comes() -> bool:  # what happened before it began to follow is not shown
        box.fleet("run", acme, "approve", "--input", '{"what": "followed"}')
        return any("noted: followed" in line for line in following.lines)

    try:
        box.eventually(comes, "a line that is followed", timeout_s=90)
    finally:
        code, said = following.interrupt()
    assert code == 130
    assert "Traceback" not in said


def test_events_of_one_tenant_and_of_all(box: Box, acme: str) -> None:
    mine = [json.loads(line) for line in lines(box.fleet("events", acme, "-o", "json").out)]
    assert {e["tenant"] for e in mine} == {acme}
    assert any(e["kind"] == "applied" for e in mine)
    assert len(lines(box.fleet("events", acme, "-n", "2").out)) == 2
    assert lines(box.fleet("events", "--since", "2100-01-01T00:00:00Z").out) == []
    assert len(lines(box.fleet("events", "--since", "1h").out)) > len(mine)


def test_events_are_followed(box: Box, acme: str) -> None:
    following = Following(box, "events", acme, "-f")
    numbers = itertools.count()

    def comes() -> bool:
        box.fleet("up", acme, "--label", f"seen=n{next(numbers)}")
        return any(f" {acme} " in line for line in following.lines)

    try:
        box.eventually(comes, "an event that is followed", timeout_s=90)
    finally:
        code, _ = following.interrupt()
    assert code == 130
    box.fleet("up", acme, "--label", "seen=")


def test_points_are_moments_that_it_can_be_restored_to(box: Box, acme: str) -> None:
    box.eventually(lambda: bool(box.json("points", acme)), "a point")
    last = box.fleet("points", acme, "-n", "1", "-o", "name").out.strip()
    copied = box.json("restore", acme, "--at", last, "--as", "copied")
    assert copied["state"] == "running"
    again = box.fleet("restore", acme, "--as", "copied", check=False)
    assert (again.code, "copied" in again.err) == (5, True)
    box.fleet("down", "copied", "--purge", "--now", "-y")


# ---- runs


def run_of(box: Box, ident: str) -> dict[str, Any]:
    """A run as `runs` shows it."""
    return next(dict(r) for r in box.json("runs", "acme", "-n", "1000") if r["id"] == ident)


def test_a_run_waits_for_a_signal_and_ends_with_it(box: Box, acme: str) -> None:
    assert box.fleet("run", acme, "approve", "--id", "tea", "--input", '{"what": "tea"}', "-o", "name").out == "tea\n"
    assert run_of(box, "tea")["state"] == "running"
    box.fleet("signal", acme, "tea", "word", '"granted"')
    waited = box.fleet("run", acme, "approve", "--id", "tea", "--input", '{"what": "tea"}', "--wait")
    assert (json.loads(waited.out), "tea" in waited.err) == ("tea: granted", True)
    kinds = [e["kind"] for e in box.json("history", acme, "tea")]
    assert "activity_completed" in kinds
    assert "tea" in box.fleet("runs", acme, "--state", "completed", "-o", "name").out.split()
    other = box.fleet("run", acme, "approve", "--id", "tea", "--input", '{"what": "cocoa"}', check=False)
    assert other.code == 5


def test_the_input_of_a_run_from_a_file_or_standard_input(box: Box, acme: str, tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text('{"what": "juice"}')
    for ident, source in (("file", f"@{tmp_path}/order.json"), ("stdin", "-")):
        box.fleet("run", acme, "approve", "--id", ident, "--input", source, stdin='{"what": "juice"}')
        box.fleet("signal", acme, ident, "word", '"ok"')
        done = box.fleet("run", acme, "approve", "--id", ident, "--input", source, "--wait", stdin='{"what": "juice"}')
        assert json.loads(done.out) == "juice: ok"
    assert box.fleet("run", acme, "approve", "--input", "{", check=False).code == 2
    assert box.fleet("run", acme, "approve", "--input", "@/no/such", check=False).code == 2


def test_a_run_is_cancelled(box: Box, acme: str) -> None:
    box.fleet("run", acme, "approve", "--id", "never")
    box.fleet("cancel", acme, "never")
    box.eventually(lambda: run_of(box, "never")["state"] == "cancelled", "the end of the run")
    done = box.fleet("run", acme, "approve", "--id", "never", "--wait", check=False)
    assert (done.code, "cancelled" in done.err) == (1, True)


def test_a_run_that_fails_says_why(box: Box, acme: str) -> None:
    done = box.fleet("run", acme, "refuse", "--wait", "-o", "json", check=False)
    assert done.code == 1
    assert "no coffee today" in done.err
    assert done.json["run"]["state"] == "failed"


@pytest.mark.parametrize(
    "words",
    [
        ("history", "acme", "no-such-run"),
        ("signal", "acme", "no-such-run", "word"),
        ("cancel", "acme", "no-such-run"),
        ("runs", "nobody"),
        ("run", "nobody", "approve"),
        ("status", "nobody"),
        ("logs", "nobody"),
        ("points", "nobody"),
        ("down", "nobody"),
        ("restart", "nobody"),
        ("restore", "nobody", "-y"),
    ],
)
def test_what_is_not_there_ends_with_3_and_is_named(box: Box, acme: str, words: tuple[str, ...]) -> None:
    done = box.fleet(*words, "-o", "json", check=False)
    assert done.code == 3, done
    assert "no-such-run" in done.err or "nobody" in done.err
    assert done.json["type"].startswith("urn:")


def test_a_workflow_that_is_not_there_is_named(box: Box, acme: str) -> None:
    done = box.fleet("run", acme, "dance", check=False)
    assert done.code in (2, 3)
    assert "dance" in done.err


# ---- tokens


def test_a_tenant_with_a_token_of_its_own(box: Box) -> None:
    box.fleet("up", "secured", "--app", str(APPROVALS), "--access", "token")
    token = box.fleet("status", "secured", "--token").out.strip()
    assert token
    assert token != box.token()
    assert box.tenant("secured", "GET", "/hello")[0] == 401
    assert box.tenant("secured", "GET", "/hello", Authorization=f"Bearer {box.token()}")[0] == 401
    assert box.tenant("secured", "GET", "/hello", Authorization=f"Bearer {token}")[0] == 200
    box.fleet("run", "secured", "approve", "--id", "mine")
    assert box.fleet("runs", "secured", "-o", "name").out == "mine\n"
    looked = box.fleet("status", "secured", "--token", check=False, FLEET_TOKEN=LOOKER)
    assert (looked.code, token in looked.out + looked.err) == (2, False)
    box.fleet("down", "secured", "--purge", "--now", "-y")


@pytest.mark.parametrize("words", [("ls",), ("status", "acme"), ("nodes",), ("events",), ("logs", "acme")])
def test_a_readonly_token_may_look(box: Box, acme: str, words: tuple[str, ...]) -> None:
    assert box.fleet(*words, FLEET_TOKEN=LOOKER).code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("up", "acme", "--env", "A=b"),
        ("up", "acme", "--app", str(APPROVALS)),
        ("down", "acme"),
        ("restart", "acme"),
        ("down", "acme", "--purge", "-y"),
        ("restore", "acme", "-y"),
    ],
)
def test_a_readonly_token_may_not_change(box: Box, acme: str, words: tuple[str, ...]) -> None:
    before = box.status(acme)["generation"]
    done = box.fleet(*words, check=False, FLEET_TOKEN=LOOKER)
    assert done.code == 2, done
    assert "may only read" in done.err
    assert box.status(acme)["generation"] == before


# ---- the shell


def test_the_shell_completes_commands(box: Box) -> None:
    assert "_fleet_completion" in box.fleet(_FLEET_COMPLETE="bash_source").out
    done = box.fleet(_FLEET_COMPLETE="bash_complete", COMP_WORDS="fleet rest", COMP_CWORD="1")
    assert {line.partition(",")[2] for line in lines(done.out)} == {"restart", "restore"}


def test_help_and_version_need_no_controller(box: Box) -> None:
    nowhere = "http://127.0.0.1:9"
    for command in ("up", "down", "doctor", "serve", "restore", "run"):
        assert "Usage: fleet " + command in box.fleet(command, "--help", FLEET_CONTROLLER=nowhere).out
    assert "fleet" in box.fleet("--version", FLEET_CONTROLLER=nowhere).out
    assert box.fleet("dance", check=False, FLEET_CONTROLLER=nowhere).code == 2
    assert box.fleet("up", check=False, FLEET_CONTROLLER=nowhere).code == 2


def test_an_output_that_nobody_reads_is_no_error(box: Box, acme: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{FLEET} events --since 1h | head -1; exit ${{PIPESTATUS[0]}}"],
        env=box.env, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
