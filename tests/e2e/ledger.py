"""A tenant that keeps rows, a client that writes to it and remembers what was acknowledged, and the question after
every fault: is each acknowledged row there, and none twice?"""

from __future__ import annotations

import shutil
import threading
import uuid
from typing import Any

from tests.e2e.box import ROOT, Box
from tests.testbed.process import wait_until

APP = ROOT / "tests/e2e/apps/ledger"
FILE = "rows.db"
_PAUSE_S = 0.02
_ASK_S = 40.0


class Ledger:
    """One tenant of the app `ledger`, and everything that was ever sent to it."""

    def __init__(self, box: Box, tenant: str) -> None:
        self.box = box
        self.tenant = tenant
        self.sent: list[str] = []
        self.acknowledged: list[str] = []
        self._lock = threading.Lock()

    def up(self, *more: str, rpo: str = "0") -> dict[str, Any]:
        """Bring it up for the first time."""
        words = ("--app", str(APP), "--db", FILE, "--rpo", rpo, "--memory", "128m", "--disk", "64m", *more)
        return dict(self.box.json("up", self.tenant, *words))

    def post(self, *, filling: int = 0, durable: str = "yes", timeout_s: float = _ASK_S) -> int:
        """Write one row; answers the status, 0 for no answer at all."""
        ident = uuid.uuid4().hex
        with self._lock:
            self.sent.append(ident)
        url = f"{self.box.gateway}/t/{self.tenant}/rows?id={ident}&filling={filling}&durable={durable}"
        try:
            status, _ = self.box.request("POST", url, timeout_s=timeout_s)
        except OSError:
            return 0
        if status == 200:
            with self._lock:
                self.acknowledged.append(ident)
        return status

    def write(self, count: int) -> None:
        """Write until this many more are acknowledged; what is refused meanwhile is sent anew, as another row."""
        want = len(self.acknowledged) + count

        def enough() -> bool:
            self.post()
            return len(self.acknowledged) >= want

        self.box.eventually(enough, f"{count} rows of {self.tenant} acknowledged", timeout_s=90)

    def ids(self) -> list[str]:
        """The rows it has. Raises OSError, or AssertionError for anything but an answer."""
        status, body = self.box.tenant(self.tenant, "GET", "/rows")
        assert status == 200, (status, body)
        return list(body["ids"])

    def check(self) -> None:
        """Every acknowledged row is there; none is there twice; none is there that nobody sent."""
        with self._lock:
            acknowledged, sent = set(self.acknowledged), set(self.sent)
        found = self.ids()
        missing = acknowledged - set(found)
        assert not missing, f"{len(missing)} of {len(acknowledged)} acknowledged rows are missing\n{self.box.log()}"
        assert len(found) == len(set(found)), "a row is there twice"
        assert set(found) <= sent, "a row is there that nobody sent"

    def lose_volume(self) -> None:
        """The disk of a tenant that is down is gone: all that is left of it is in the bucket."""
        volume = self.box.state / "t" / self.tenant
        self.box.unmount(volume)
        shutil.rmtree(volume)

    def check_bucket(self) -> None:
        """The same from the bucket alone: down, the disk lost, up again."""
        self.box.fleet("down", self.tenant)
        self.lose_volume()
        self.box.fleet("up", self.tenant)
        self.check()


class Writing:
    """Clients that write for as long as the block lasts."""

    def __init__(self, ledger: Ledger, clients: int = 3) -> None:
        self._ledger = ledger
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Writing:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(_ASK_S + 5)

    def more(self, count: int = 5, timeout_s: float = 90) -> None:
        """Wait until this many more rows are acknowledged."""
        want = len(self._ledger.acknowledged) + count
        try:
            wait_until(lambda: len(self._ledger.acknowledged) >= want, f"{count} more rows", timeout_s=timeout_s)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self._ledger.box.log()}") from None

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._ledger.post() != 200:
                self._stop.wait(0.2)
            self._stop.wait(_PAUSE_S)


class Asking:
    """A client that reads for as long as the block lasts; `statuses` is what it was answered, 0 for no answer."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.statuses: list[int] = []

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(_ASK_S)

    def more(self, count: int = 5) -> None:
        """Wait for this many more answers."""
        want = len(self.statuses) + count
        wait_until(lambda: len(self.statuses) >= want, f"{count} more answers")

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.statuses.append(self._ledger.box.tenant(self._ledger.tenant, "GET", "/rows")[0])
            except OSError:
                self.statuses.append(0)
            self._stop.wait(_PAUSE_S)
