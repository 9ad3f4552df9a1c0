"""Bad input: a clear error that names the field and the tenant; nothing is changed, nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.box import DOCSEARCH, READONLY, Box


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["up", "Acme", "--image", "x", "--db", "a.db"], "Acme"),
        (["up", "a" * 64, "--image", "x", "--db", "a.db"], "a" * 64),
        (["up", "new"], "--app or --image"),
        (["up", "new", "--image", "x"], "databases"),
        (["up", "new", "--image", "x", "--db", "../up.db"], "databases"),
        (["up", "new", "--image", "x", "--db", "a.db-wal"], "databases"),
        (["up", "new", "--image", "x", "--db", "a.db", "--memory", "lots"], "limits.memory"),
        (["up", "new", "--image", "x", "--db", "a.db", "--memory", "1m"], "limits.memory"),
        (["up", "new", "--image", "x", "--db", "a.db", "--rpo", "soon"], "rpo"),
        (["up", "new", "--image", "x", "--db", "a.db", "--rpo", "0"], "calls_durable"),
        (["up", "new", "--image", "x", "--db", "a.db", "--retention", "1m"], "retention"),
        (["up", "new", "--image", "x", "--db", "a.db", "--port", "80"], "port"),
        (["up", "new", "--image", "x", "--db", "a.db", "--writable", "tmp"], "writable"),
        (["up", "new", "--image", "x", "--db", "a.db", "--env", "NOVALUE"], "--env"),
        (["up", "new", "--image", "x", "--db", "a.db", "--secret", "key=plain"], "@FILE"),
        (["up", "new", "--image", "x", "--app", "y", "--db", "a.db"], "not both"),
        (["up", "new", "--image", "x", "--db", "a.db", "--timeout", "never"], "duration"),
        (["down"], "--all"),
        (["restore", "new", "--at", "yesterday", "-y"], "time"),
    ],
)
def test_what_is_typed_wrong_is_named(box: Box, words: list[str], says: str) -> None:
    before = box.objects("")
    done = box.fleet(*words, check=False)
    assert done.code == 2, done
    assert says in done.err
    assert "Traceback" not in done.err
    assert [k for k in box.objects("") if not k.startswith("nodes/")] == [
        k for k in before if not k.startswith("nodes/")
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image: x\ndatabases: [a.db]\ncolour: red\n", "colour"),
        ("image: x\ndatabases: [a.db]\nlimits: {memory: 128m, ram: 1g}\n", "limits.ram"),
        ("image: x\ndatabases: a.db\n", "databases"),
        ("image: x\ndatabases: [a.db]\nenv: {A: 1}\n", "env.A"),
        ("image: x\ndatabases: [a.db]\nport: eighty\n", "port"),
        ("[1, 2]\n", "mapping"),
        ("image: [unclosed\n", "YAML"),
        ("", "mapping"),
    ],
)
def test_a_wrong_spec_file_is_named_with_its_path(box: Box, text: str, says: str) -> None:
    done = box.fleet("up", "filed", "-f", "-", stdin=text, check=False)
    assert done.code == 2, done
    assert says in done.err
    assert box.fleet("status", "filed", check=False).code == 3


def app(tmp_path: Path) -> Path:
    """A folder that could be an app."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "app.py").write_text("")
    return folder


def refused(box: Box, folder: Path, says: str) -> None:
    """`up --app` of this folder is refused, and nothing is known of the tenant after it."""
    done = box.fleet("up", "coded", "--app", str(folder), check=False)
    assert done.code == 2, done
    assert says in done.err
    assert box.fleet("status", "coded", check=False).code == 3


def test_an_app_folder_that_is_missing(box: Box, tmp_path: Path) -> None:
    refused(box, tmp_path / "nowhere", "there is no folder")


def test_an_app_folder_without_an_app(box: Box, tmp_path: Path) -> None:
    refused(box, tmp_path, "app.py")


def test_an_app_folder_that_is_too_large(box: Box, tmp_path: Path) -> None:
    folder = app(tmp_path)
    with (folder / "big").open("wb") as f:
        f.truncate((256 << 20) + 1)
    refused(box, folder, "256 MiB")


def test_an_app_folder_with_a_link_that_leaves_it(box: Box, tmp_path: Path) -> None:
    folder = app(tmp_path)
    (folder / "passwd").symlink_to("/etc/passwd")
    refused(box, folder, "leaves the folder")


def test_an_app_folder_with_a_pipe(box: Box, tmp_path: Path) -> None:
    import os

    folder = app(tmp_path)
    os.mkfifo(folder / "pipe")
    refused(box, folder, "neither a file")


def test_an_image_that_is_not_there(box: Box) -> None:
    done = box.fleet("up", "imageless", "--image", "no/such:image", "--db", "a.db", check=False)
    assert done.code == 1
    assert "no/such:image" in done.err
    assert box.status("imageless")["reason"] == "no_image"
    assert not box.objects("owners/imageless"), "what cannot run here must not move here"
    box.fleet("down", "imageless", "--purge", "--now", "-y")


def test_a_port_that_the_server_never_opens(box: Box) -> None:
    code = "import time; print('listening nowhere', flush=True); time.sleep(1)"
    done = box.fleet("up", "silent", "--image", "fleet/worker:latest", "--db", "a.db", "--", "-c", code, check=False)
    assert done.code == 1
    assert "listening nowhere" in done.err, "the last lines of its log are shown"
    box.fleet("down", "silent")


def test_a_database_that_does_not_appear_is_a_warning(box: Box) -> None:
    view = box.json("up", "half", "--app", str(DOCSEARCH), "--db", "docs.db", "--db", "never.db", "--memory", "256m")
    assert view["state"] == "running"
    box.eventually(
        lambda: any("never.db" in w for w in box.status("half")["warnings"]), "a warning that names the file"
    )
    assert box.tenant("half", "GET", "/stats")[0] == 200
    box.fleet("down", "half")


def test_the_databases_of_a_tenant_cannot_change(box: Box) -> None:
    box.fleet("up", "fixed", "--app", str(DOCSEARCH), "--db", "docs.db", "--memory", "256m")
    done = box.fleet("up", "fixed", "--db", "other.db", check=False)
    assert done.code in (2, 5)
    assert "databases" in done.err
    assert box.status("fixed")["state"] == "running"
    box.fleet("down", "fixed")


def test_a_wrong_token_and_a_readonly_token(box: Box) -> None:
    assert box.fleet("ls", check=False, FLEET_TOKEN="wrong").code == 2
    assert box.request("GET", f"{box.controller}/v1/tenants")[0] == 401
    assert box.fleet("ls", FLEET_TOKEN=READONLY).code == 0
    done = box.fleet("up", "forbidden", "--image", "x", "--db", "a.db", check=False, FLEET_TOKEN=READONLY)
    assert done.code == 2, done
    assert "read" in done.err
    assert box.fleet("status", "forbidden", check=False).code == 3


def test_a_body_over_the_bound(box: Box) -> None:
    headers = {"Authorization": f"Bearer {box.token()}", "Content-Type": "application/json"}
    status, problem = box.request("PUT", f"{box.controller}/v1/tenants/fat", b" " * ((1 << 20) + 1), 30, **headers)
    assert status == 413
    assert problem["type"] == "urn:fleet:too_large"


def test_json_output_has_a_problem_document(box: Box) -> None:
    done = box.fleet("status", "nobody", "-o", "json", check=False)
    assert done.code == 3
    assert json.loads(done.out)["type"] == "urn:fleet:not_found"
    assert "nobody" in done.err


def test_a_controller_that_is_not_there(box: Box) -> None:
    done = box.fleet("ls", check=False, FLEET_CONTROLLER="http://127.0.0.1:9")
    assert done.code == 6
    assert "fleet serve" in done.err
