"""What runs when nothing happens: memory and CPU of the fleet's own processes, and what a tenant asks of the store.

Everything is asked through a proxy that counts. A tenant's share is what a window with tenants has more than one
without any. The longer the window, the truer: `BENCH_WINDOW_S=3600` sees what happens once an hour too.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench.figures import Figure, quantile
from tests.bench.stage import Stage, side_by_side, stage
from tests.testbed.faulty import FaultyProxy, Seen

TENANTS = 50
EMPTY_S = 120
# How often a sidecar looks what it could compact, and how long after the minute it may be at it.
LOOK_S = 300
LATE_S = 20
WINDOW_S = 2 * LOOK_S
SETTLE_S = 60
DAY_S = 86400
WRITER = "writer"
ROW = b"x" * 100
_TICKS = os.sysconf("SC_CLK_TCK")
_LEVEL = re.compile(r"/([0-9a-f]{4})/")


def run(*, quick: bool = False) -> Iterator[Figure]:
    """At 0 tenants, then at 50 and one that writes a row a second."""
    count = 5 if quick else TENANTS
    window_s = int(os.environ.get("BENCH_WINDOW_S", 60 if quick else WINDOW_S))
    with stage(counted=True) as s:
        proxy = s.proxy
        assert proxy is not None
        time.sleep(10 if quick else 30)
        empty = _window(s, proxy, 30 if quick else EMPTY_S)
        side_by_side(lambda tenant: s.up(tenant), s.names("idle", count), 4)
        s.up(WRITER)
        time.sleep(15 if quick else _rest_s(time.time()))
        disk = _disk(s)
        with _writing(s) as rows:
            full = _window(s, proxy, window_s)
        grown = _disk(s) - disk
        yield from _processes(s, empty, full, count)
        yield from _requests(empty, full, count)
        yield from _writer(s, full, rows.done, disk, grown)


def _rest_s(now: float) -> float:
    """Until a start has left no more to do: sidecars compact what it wrote at the next multiple of five minutes."""
    return SETTLE_S + LOOK_S - (now + SETTLE_S) % LOOK_S + LATE_S


@dataclass(frozen=True)
class _Window:
    """What was seen in so many seconds: requests, and each process's CPU seconds; its resident bytes at the end."""

    seconds: float
    seen: tuple[Seen, ...]
    cpu_s: Mapping[str, float]
    rss_bytes: Mapping[str, int]

    def others(self) -> list[Seen]:
        """Requests that are not about the tenant that writes."""
        return [one for one in self.seen if f"/{WRITER}/" not in one.key and f"/{WRITER}." not in one.key]

    def writers(self) -> list[Seen]:
        """Requests about it."""
        return [one for one in self.seen if f"/{WRITER}/" in one.key or f"/{WRITER}." in one.key]


def _window(s: Stage, proxy: FaultyProxy, seconds: float) -> _Window:
    pids = _pids(s)
    before = {name: _cpu_s(pid) for name, pid in pids.items()}
    began = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    cpu_s = {name: _cpu_s(pid) - before[name] for name, pid in pids.items()}
    seen = tuple(one for one in tuple(proxy.seen) if began <= one.at < began + took)
    return _Window(took, seen, cpu_s, {name: _rss_bytes(pid) for name, pid in pids.items()})


def _pids(s: Stage) -> dict[str, int]:
    found = {"agent": s.box.pid("agent"), "guard": s.box.pid("guard"), "controller": s.box.controller_pid()}
    found["serve"] = s.box.process.pid
    assert all(found.values()), found
    return {name: pid for name, pid in found.items() if pid}


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _rss_bytes(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


class _Rows:
    """A thread that writes a row a second; `done` are those that were answered."""

    def __init__(self, s: Stage) -> None:
        self.done = 0
        self._s = s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._end.wait(max(0.0, due - time.monotonic())):
            due += 1
            status, _ = self._s.box.tenant(WRITER, "POST", "/rows", ROW)
            self.done += status == 200

    def __enter__(self) -> _Rows:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(30)


def _writing(s: Stage) -> _Rows:
    return _Rows(s)


def _disk(s: Stage) -> int:
    """What the writer's volume and its replicator's files occupy on the node."""
    out = 0
    for folder, _, files in os.walk(s.volume(WRITER)):
        out += sum(Path(folder, name).lstat().st_blocks * 512 for name in files if name != "data.ext4")
    return out


def _processes(s: Stage, empty: _Window, full: _Window, count: int) -> Iterator[Figure]:
    for name in empty.rss_bytes:
        none, some = empty.rss_bytes[name] / (1 << 20), full.rss_bytes[name] / (1 << 20)
        raw = {"at_0_mib": round(none, 1), f"at_{count}_mib": round(some, 1)}
        yield Figure(f"{name}: resident at {count} tenants", some, "MiB", raw=raw)
    for name in empty.cpu_s:
        none, some = (100 * w.cpu_s[name] / w.seconds for w in (empty, full))
        raw = {"at_0_percent": round(none, 2), f"at_{count}_percent": round(some, 2)}
        yield Figure(f"{name}: CPU, {count} idle tenants", some, "% of a core", raw=raw)
    for role in ("worker", "sidecar"):
        ids = s.box.docker("ps", "-q", "--filter", "label=fleet.role=" + role, "--filter", "name=idle").split()
        pids = s.box.docker("inspect", "-f", "{{.State.Pid}}", *ids).split()
        # A worker's first process is the engine's init: its server is that one's child.
        sizes = [max(map(_rss_bytes, [int(pid), *_children(int(pid))])) / (1 << 20) for pid in pids]
        yield Figure(f"{role} of an idle tenant: resident", quantile(sizes, 0.5), "MiB")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _requests(empty: _Window, full: _Window, count: int) -> Iterator[Figure]:
    """Each tenant's share of what there is more, and all of it by what it asks for."""
    none, some = (len(w.others()) / w.seconds * DAY_S for w in (empty, full))
    kinds = Counter(_kind(one) for one in full.others())
    raw = {
        "window_s": round(full.seconds),
        "requests_in_window": len(full.others()),
        "a_day_with_0": round(none),
        f"a_day_with_{count}": round(some),
        **{f"{kind}_in_window": number for kind, number in sorted(kinds.items())},
    }
    each = (some - none) / count
    yield Figure("an idle tenant's requests at the store a day", each, "1/day", 500, "at most", raw)


def _kind(one: Seen) -> str:
    top = one.key.removeprefix("fleet/").partition("/")[0] or "-"
    level = _LEVEL.search(one.key)
    return f"{one.method}_{top}" + (f"_{level[1]}" if level else "")


def _writer(s: Stage, full: _Window, rows: int, disk: int, grown: int) -> Iterator[Figure]:
    seen = full.writers()
    scale = DAY_S / full.seconds
    methods = Counter(one.method for one in seen)
    sent, got = sum(one.bytes_in for one in seen), sum(one.bytes_out for one in seen)
    prefix = f"fleet/data/{WRITER}/"
    pages = s.minio.client.get_paginator("list_objects_v2").paginate(Bucket=s.bucket, Prefix=prefix)
    sizes = [item["Size"] for page in pages for item in page.get("Contents", ())]
    raw = {
        "rows": rows,
        "window_s": round(full.seconds),
        "requests_in_window": dict(methods),
        "sent_bytes": sent,
        "got_bytes": got,
        "objects_in_bucket": len(sizes),
        "bytes_in_bucket": sum(sizes),
        "disk_before_bytes": disk,
        "disk_grown_bytes": grown,
    }
    yield Figure("a row a second: requests a day", len(seen) * scale, "1/day", raw=raw)
    yield Figure("a row a second: sent to the store a day", sent * scale / (1 << 20), "MiB/day")
    yield Figure("a row a second: bytes sent a row", sent / max(rows, 1), "bytes")
    yield Figure("a row a second: disk on the node, more a day", grown * scale / (1 << 20), "MiB/day")
