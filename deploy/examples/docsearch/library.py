"""The documents of one tenant in one SQLite file, docs.db: what waits to be indexed, the index, and what was done."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import re
import tarfile
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import apsw

DOCUMENT_MAX_BYTES = 4 << 20  # of one document, unpacked: a bound on memory, and on what a small archive can blow up to
CHUNK_BYTES = 1 << 20  # of documents stored in one transaction

SCHEMA = """
-- What was uploaded and waits. Ids are never used again, so that a batch means the same documents for ever.
CREATE TABLE IF NOT EXISTS inbox (
  id     INTEGER PRIMARY KEY AUTOINCREMENT,
  path   TEXT NOT NULL UNIQUE,
  digest TEXT NOT NULL,       -- of the bytes as uploaded
  raw    BLOB NOT NULL        -- gzipped
) STRICT;
-- What is indexed or skipped. `id` is the row in `texts`.
CREATE TABLE IF NOT EXISTS documents (
  id      INTEGER PRIMARY KEY,
  path    TEXT NOT NULL UNIQUE,
  digest  TEXT NOT NULL,
  skipped TEXT                -- why it is not in the index
) STRICT;
CREATE VIRTUAL TABLE IF NOT EXISTS texts USING fts5(path, body);
-- One row per finished step, by its idempotency key: a step that runs again finds its result here and changes nothing.
CREATE TABLE IF NOT EXISTS finished (step TEXT PRIMARY KEY, indexed INTEGER NOT NULL, skipped INTEGER NOT NULL) STRICT;
-- One row per execution of a step, also of those that were killed: repeated work can be seen.
CREATE TABLE IF NOT EXISTS executions (step TEXT NOT NULL, attempt INTEGER NOT NULL, at REAL NOT NULL) STRICT;
"""


class ArchiveError(ValueError):
    """What was uploaded is no archive, or ends early."""


class QueryError(ValueError):
    """A search that can't be answered."""


@dataclass(frozen=True)
class Batch:
    """Waiting documents from the id `first` to `last`, both included."""

    first: int
    last: int


@dataclass(frozen=True)
class Counts:
    """Documents put into the index, and skipped because they are no text."""

    indexed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.indexed + other.indexed, self.skipped + other.skipped)


class Library:
    """docs.db. `writer` serves one thread at a time, `reader` the searches; both are connections to the same file."""

    def __init__(self, writer: apsw.Connection, reader: apsw.Connection) -> None:
        self._writer = writer
        self._reader = reader
        self._lock = threading.Lock()
        self.folder = Path(writer.filename).parent
        writer.execute(SCHEMA)

    def receive(self, archive: IO[bytes]) -> dict[str, int]:
        """Stores the documents of a tar file in the inbox; those that are there unchanged are left alone.

        Raises ArchiveError; the documents before the damage are stored then, and sending a good archive adds the rest.
        """
        received = {"stored": 0, "unchanged": 0, "too_large": 0}
        chunk: list[tuple[str, str, bytes]] = []
        chunk_bytes = 0
        try:
            for path, raw in _documents(archive):
                if len(raw) > DOCUMENT_MAX_BYTES:
                    received["too_large"] += 1
                    continue
                chunk.append((path, hashlib.sha256(raw).hexdigest(), raw))
                chunk_bytes += len(raw)
                if chunk_bytes >= CHUNK_BYTES:
                    self._store(chunk, received)
                    chunk, chunk_bytes = [], 0
        except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            raise ArchiveError(f"it is no complete tar archive: {error}") from error
        finally:
            self._store(chunk, received)
        return received

    def _store(self, chunk: list[tuple[str, str, bytes]], received: dict[str, int]) -> None:
        with self._lock, self._writer:
            for path, digest, raw in chunk:
                if self._known(path, digest):
                    received["unchanged"] += 1
                    continue
                packed = raw if raw[:2] == b"\x1f\x8b" else gzip.compress(raw, 1)
                self._writer.execute(
                    "INSERT OR REPLACE INTO inbox (path, digest, raw) VALUES (?, ?, ?)", (path, digest, packed)
                )
                received["stored"] += 1

    def _known(self, path: str, digest: str) -> bool:
        query = "SELECT digest FROM inbox WHERE path = ?1 UNION ALL SELECT digest FROM documents WHERE path = ?1"
        found = self._writer.execute(query, (path,)).fetchone()  # the one that waits is the newer one
        return found is not None and found[0] == digest

    def plan(self, batch_documents: int) -> list[Batch]:
        """The waiting documents in batches of that many."""
        with self._lock:
            ids = [row[0] for row in self._writer.execute("SELECT id FROM inbox ORDER BY id")]
        starts = range(0, len(ids), batch_documents)
        return [Batch(ids[start], ids[min(start + batch_documents, len(ids)) - 1]) for start in starts]

    def index(self, batch: Batch, step: str, attempt: int) -> Counts:
        """Moves a batch from the inbox into the index. `step` is the idempotency key: a second call returns the first's
        result. One transaction, so that it is done whole or not at all.
        """
        with self._lock:
            # A transaction of its own: this row stays, whatever happens to the rest.
            self._writer.execute("INSERT INTO executions VALUES (?, ?, ?)", (step, attempt, time.time()))
            done = self._writer.execute("SELECT indexed, skipped FROM finished WHERE step = ?", (step,)).fetchone()
            if done is not None:
                return Counts(*done)
            counts = Counts()
            with self._writer:
                waiting = "SELECT id FROM inbox WHERE id BETWEEN ? AND ? ORDER BY id"
                for (id_,) in self._writer.execute(waiting, (batch.first, batch.last)).fetchall():
                    counts = counts + self._move(id_)
                self._writer.execute("INSERT INTO finished VALUES (?, ?, ?)", (step, counts.indexed, counts.skipped))
            return counts

    def _move(self, id_: Any) -> Counts:
        write = self._writer.execute
        path, digest, raw = write("SELECT path, digest, raw FROM inbox WHERE id = ?", (id_,)).get
        text, skipped = _text(raw)
        write("DELETE FROM texts WHERE rowid IN (SELECT id FROM documents WHERE path = ?)", (path,))
        write("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?)", (id_, path, digest, skipped))
        if skipped is None:
            write("INSERT INTO texts (rowid, path, body) VALUES (?, ?, ?)", (id_, path, text))
        write("DELETE FROM inbox WHERE id = ?", (id_,))
        return Counts(indexed=1) if skipped is None else Counts(skipped=1)

    def search(self, query: str, limit: int) -> list[dict[str, Any]]:
        """Documents with all the words of a query, best first (bm25; a word in the path counts more). Raises
        QueryError."""
        words = re.findall(r"\w+", query[:1000])
        if not words:
            raise QueryError("give at least one word to search for")
        # Quoted: what a user types is words, and never the query language of FTS5.
        rows = self._reader.execute(
            "SELECT path, snippet(texts, 1, '[', ']', ' … ', 24), bm25(texts, 4.0, 1.0) AS rank "
            "FROM texts WHERE texts MATCH ? ORDER BY rank LIMIT ?",
            (" ".join(f'"{word}"' for word in words), limit),
        )
        return [{"path": path, "snippet": snippet, "score": round(-rank, 3)} for path, snippet, rank in rows]

    def stats(self) -> dict[str, int]:
        """How many documents are where, how many steps are finished, and how many executions that took."""
        queries = {
            "indexed": "SELECT count(*) FROM documents WHERE skipped IS NULL",
            "skipped": "SELECT count(*) FROM documents WHERE skipped IS NOT NULL",
            "waiting": "SELECT count(*) FROM inbox",
            "steps_finished": "SELECT count(*) FROM finished",
            "executions": "SELECT count(*) FROM executions",
        }
        return {name: self._reader.execute(query).get for name, query in queries.items()}


def _documents(archive: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=archive, mode="r:*") as members:
        for member in members:
            members.members = []  # type: ignore[attr-defined]  # else it remembers each one, for a rewind nobody asks for
            content = members.extractfile(member) if member.isreg() else None  # no links, no devices, and no unpacking
            if content is not None:
                path = (
                    member.name.removeprefix("./").encode(errors="backslashreplace").decode()
                )  # a name may be no text
                yield path, content.read(DOCUMENT_MAX_BYTES + 1)


def _text(raw: bytes) -> tuple[str, str | None]:
    """The text of a gzipped document, or why it has none. What is not UTF-8 is taken as Latin-1, as old files are."""
    try:
        content = gzip.GzipFile(fileobj=io.BytesIO(raw)).read(DOCUMENT_MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        return "", f"cannot be unpacked: {error}"
    if len(content) > DOCUMENT_MAX_BYTES:
        return "", f"over {DOCUMENT_MAX_BYTES} bytes when unpacked"
    if b"\x00" in content[:4096]:
        return "", "not a text"
    try:
        return content.decode(), None
    except UnicodeDecodeError:
        return content.decode("latin-1"), None
