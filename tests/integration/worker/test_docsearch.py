"""The example tenant on real documents: killed in the middle of its work, it goes on and does nothing twice."""

import gzip
import io
import itertools
import tarfile
from pathlib import Path

import apsw
import pytest

DOCUMENTS = 400
BATCH = 10


def real_documents():
    """Files of /usr/share/doc, plain and gzipped, the smaller ones first so that the test stays quick."""
    files = [path for path in Path("/usr/share/doc").rglob("*") if path.is_file() and not path.is_symlink()]
    return sorted((path for path in files if path.stat().st_size), key=lambda path: (path.stat().st_size, path))


@pytest.fixture(scope="module")
def documents():
    found = list(itertools.islice(real_documents(), DOCUMENTS))
    if len(found) < DOCUMENTS:
        pytest.skip(f"/usr/share/doc has only {len(found)} documents")
    return found


def archive(files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for path in files:
            tar.add(path, arcname=str(path.relative_to("/usr/share/doc")), recursive=False)
    return packed.getvalue()


def put(worker, content):
    return worker.client.put("/documents/archive", content=content)


def ingest(worker, run_id):
    return worker.run("ingest", {"batch_documents": BATCH}, id=run_id)


def finished(worker, run_id):
    result = worker.get(f"/v1/runs/{run_id}/result?wait=60s").json()
    assert result["state"] == "completed", result
    return result["result"]


def executions(worker):
    """How often each step ran, by its idempotency key."""
    db = apsw.Connection(str(worker.data / "docs.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return dict(db.execute("SELECT step, count(*) FROM executions GROUP BY step").fetchall())
    finally:
        db.close()


@pytest.mark.parametrize("rpo", ["1s", "0"])
def test_killed_in_the_middle_of_an_ingest_it_goes_on_and_repeats_no_finished_step(
    docsearch, documents, door, tmp_path, rpo
):
    docsearch.door, docsearch.rpo = tmp_path / "agent.sock", rpo
    docsearch.start()
    assert put(docsearch, archive(documents)).json() == {"stored": DOCUMENTS, "unchanged": 0, "too_large": 0}
    ingest(docsearch, "one")
    docsearch.until(lambda: docsearch.get("/stats").json()["steps_finished"] >= 5)
    docsearch.kill()
    finished_before = recorded(docsearch, "one")
    docsearch.start()

    counts = finished(docsearch, "one")

    assert counts["indexed"] + counts["skipped"] == DOCUMENTS
    stats = docsearch.get("/stats").json()
    assert (stats["indexed"], stats["skipped"], stats["waiting"]) == (counts["indexed"], counts["skipped"], 0)
    assert stats["steps_finished"] == DOCUMENTS // BATCH
    ids = [body["id"] for body in steps(docsearch, "one")]
    assert len(ids) == len(set(ids))
    assert set() < finished_before < set(ids), "it was killed before or after its work"
    ran = executions(docsearch)
    assert all(ran[f"one:{step}"] == 1 for step in finished_before if f"one:{step}" in ran)
    assert sum(ran.values()) <= DOCUMENTS // BATCH + 1  # only what the kill cut off ran again


def recorded(worker, run_id):
    """The finished steps in the file of a worker that is dead: one that lives goes on at once."""
    db = apsw.Connection(str(worker.data / "workflow.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        found = "SELECT json_extract(body, '$.id') FROM log WHERE workflow = ? AND kind = 'activity_completed'"
        return {step for (step,) in db.execute(found, (run_id,))}
    finally:
        db.close()


def steps(worker, run_id):
    return [event["body"] for event in worker.history(run_id) if event["kind"] == "activity_completed"]


def test_killed_while_documents_arrive_the_archive_is_sent_again_and_nothing_is_stored_twice(docsearch, documents):
    docsearch.start()
    content = archive(documents)
    assert put(docsearch, content).json()["stored"] == DOCUMENTS
    docsearch.kill()
    docsearch.start()
    assert put(docsearch, content).json() == {"stored": 0, "unchanged": DOCUMENTS, "too_large": 0}
    ingest(docsearch, "one")
    finished(docsearch, "one")
    assert put(docsearch, content).json()["unchanged"] == DOCUMENTS


def test_an_upload_is_acknowledged_only_when_the_node_has_confirmed_it(docsearch, documents, door, tmp_path):
    docsearch.door, docsearch.rpo = tmp_path / "agent.sock", "0"
    docsearch.start()
    before = door.calls
    assert put(docsearch, archive(documents[:3])).status_code == 200
    assert door.calls > before


def text_archive(**texts):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in texts.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def searched(worker, query):
    return [result["path"] for result in worker.get("/search", params={"q": query}).json()["results"]]


def test_documents_of_every_kind_are_found_by_their_words_best_first(docsearch):
    docsearch.start()
    put(
        docsearch,
        text_archive(
            plain=b"the quick brown fox",
            packed=gzip.compress(b"a fox, a fox and another fox"),
            latin="na\xefve caf\xe9".encode("latin-1"),
            binary=b"\x7fELF\x00\x00 fox",
            broken=gzip.compress(b"fox" * 100)[:20],
        ),
    )
    ingest(docsearch, "one")
    assert finished(docsearch, "one") == {"indexed": 3, "skipped": 2}
    assert searched(docsearch, "fox") == ["packed", "plain"]
    assert searched(docsearch, "café") == ["latin"]
    assert searched(docsearch, "quick fox") == ["plain"]
    assert searched(docsearch, "nothing like it") == []
    found = docsearch.get("/search", params={"q": "brown"}).json()["results"][0]
    assert found["snippet"] == "the quick [brown] fox"


def test_a_document_that_changed_is_indexed_anew_and_its_old_text_forgotten(docsearch):
    docsearch.start()
    for number, text in enumerate((b"old words", b"new words")):
        put(docsearch, text_archive(page=text))
        ingest(docsearch, f"run-{number}")
        finished(docsearch, f"run-{number}")
    assert (searched(docsearch, "old"), searched(docsearch, "new")) == ([], ["page"])
    assert docsearch.get("/stats").json()["indexed"] == 1


@pytest.mark.parametrize("query", ["", "   ", "!!!", "\x00", '"'])
def test_a_search_without_a_word_is_told_so(refusing_docsearch, query):
    answer = refusing_docsearch.get("/search", params={"q": query})
    assert (answer.status_code, answer.json()["field"]) == (422, "q")


@pytest.mark.parametrize("query", ['"unbalanced', "a AND", "path:x", "near(", "a*b", "c++ -x", "na\x00ive", "x" * 5000])
def test_no_query_is_taken_for_the_query_language(refusing_docsearch, query):
    assert refusing_docsearch.get("/search", params={"q": query}).status_code == 200


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "1e3", "", "٣", "01009", "10000000000000000000000"])
def test_a_wrong_limit_is_named(refusing_docsearch, limit):
    answer = refusing_docsearch.get("/search", params={"q": "fox", "limit": limit})
    assert (answer.status_code, answer.json()["field"]) == (422, "limit")


def test_what_is_no_archive_is_refused_and_a_cut_one_can_be_sent_again(docsearch, documents):
    docsearch.start()
    assert put(docsearch, b"no archive").status_code == 422
    assert put(docsearch, b"").status_code == 422
    whole = archive(documents)
    cut = put(docsearch, whole[: len(whole) // 2])
    assert (cut.status_code, cut.json()["field"]) == (422, "body")
    kept = docsearch.get("/stats").json()["waiting"]
    assert put(docsearch, whole).json() == {"stored": DOCUMENTS - kept, "unchanged": kept, "too_large": 0}


def test_names_that_are_no_text_and_entries_that_are_no_files_do_no_harm(docsearch):
    docsearch.start()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", encoding="utf-8", errors="surrogateescape") as tar:
        for name, kind in (("caf\udce9", tarfile.REGTYPE), ("link", tarfile.SYMTYPE), ("../up", tarfile.REGTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd" if kind == tarfile.SYMTYPE else ""
            member.size = 3 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"fox"))
    assert put(docsearch, packed.getvalue()).json()["stored"] == 2
    ingest(docsearch, "one")
    assert finished(docsearch, "one") == {"indexed": 2, "skipped": 0}
    assert set(searched(docsearch, "fox")) == {"caf\\udce9", "../up"}


def test_a_batch_size_out_of_bounds_is_refused_by_name(refusing_docsearch):
    answer = refusing_docsearch.run("ingest", {"batch_documents": 0})
    assert (answer.status_code, answer.json()["field"]) == (422, "input")
    assert refusing_docsearch.run("ingest", {"colour": "red"}).json()["field"] == "input.colour"
