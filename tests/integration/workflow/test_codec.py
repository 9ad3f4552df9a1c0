"""Values that are encrypted on their way into the file: nothing readable is left there, and nothing gets lost."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from pathlib import Path
from typing import Any

import pytest

from node.workflow import Context, Retry, activity, errors, workflow
from node.workflow.core.schedule import Schedule
from node.workflow.log.codec import MARK
from node.workflow.log.sweep import Keep
from tests.integration.workflow.served import run, served, until

SECRET = "the butler did it"


class Cipher:
    """A toy: XOR with a key stream, and a checksum that tells the wrong key."""

    def __init__(self, key: bytes) -> None:
        self.key = key

    def encode(self, data: bytes) -> bytes:
        nonce = secrets.token_bytes(8)
        return nonce + hashlib.sha256(self.key + data).digest()[:8] + self._mixed(nonce, data)

    def decode(self, data: bytes) -> bytes:
        found = self._mixed(data[:8], data[16:])
        if hashlib.sha256(self.key + found).digest()[:8] != data[8:16]:
            raise ValueError("another key")
        return found

    def _mixed(self, nonce: bytes, data: bytes) -> bytes:
        stream = hashlib.shake_256(self.key + nonce).digest(len(data))
        return bytes(a ^ b for a, b in zip(data, stream, strict=True))


RIGHT, WRONG = Cipher(b"right"), Cipher(b"wrong")


@activity(retry=Retry(max_attempts=2, initial_interval_s=0.001))
async def blab(what: str) -> str:
    if len(what) < 100:
        raise RuntimeError(what)
    return what


@workflow
async def story(ctx: Context, what: str) -> Any:
    ctx.set_state({"told": what})
    await ctx.run(blab, what * 100)
    try:
        await ctx.run(blab, what)
    except errors.ActivityFailed as failed:
        assert what in str(failed)
    return [what, await ctx.wait_signal("end")]


@workflow
async def failing(ctx: Context, what: str) -> None:
    raise ValueError(what)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workflow.db"


def bytes_of(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.glob("workflow.db*"))


def test_nothing_readable_is_in_the_file_and_everything_comes_back(path: Path) -> None:
    async def main() -> None:
        schedule = Schedule("s", "story", "@yearly", input=SECRET)
        async with served(path, story, failing, codec=RIGHT, schedules=[schedule]) as engine:
            await engine.start("story", SECRET, "a")
            await engine.start("failing", SECRET, "f")
            assert (await engine.result("f")).error["message"] == SECRET
            await until(lambda: engine.get("a").waits == ("signal end",))
            assert engine.get("a").user_state == {"told": SECRET}
        async with served(path, story, failing, codec=RIGHT) as engine:
            assert engine.schedules.get("s").schedule.input == SECRET
            assert (engine.get("a").input, engine.get("a").user_state) == (SECRET, {"told": SECRET})
            await engine.signal("a", "end", SECRET)
            assert (await engine.result("a")).unwrap() == [SECRET, SECRET]
            assert engine.stats().runs["blocked"] == 0
            assert SECRET in str([e.body for e in engine.history("a")])
        assert SECRET[4:10].encode() not in bytes_of(path)
        assert MARK.encode() in bytes_of(path)

    run(main)


@pytest.mark.parametrize("codec", [WRONG, None])
def test_with_the_wrong_key_a_run_is_blocked_with_the_reason_and_goes_on_with_the_right_one(
    path: Path, codec: Cipher | None
) -> None:
    async def main() -> None:
        async with served(path, story, codec=RIGHT) as engine:
            await engine.start("story", SECRET, "a")
            await until(lambda: engine.get("a").waits == ("signal end",))
            await engine.start("story", SECRET, "b")
        async with served(path, story, codec=codec) as engine:
            await engine.signal("a", "other", "kept")
            await until(lambda: engine.get("a").state == "blocked")
            shown = engine.get("a")
            assert shown.input is None
            assert "codec" in shown.error["message"]
            assert {r.id for r in engine.list().runs} == {"a", "b"}
            with pytest.raises(errors.Undecodable):
                engine.history("a")
            await engine.start("story", SECRET, "new")
        keys = {b"right": RIGHT, b"wrong": WRONG}

        class Both:
            """As one keeps the old key beside the new one."""

            encode = RIGHT.encode

            def decode(self, data: bytes) -> bytes:
                for cipher in keys.values():
                    try:
                        return cipher.decode(data)
                    except ValueError:
                        continue
                raise ValueError("no key")

        async with served(path, story, codec=Both()) as engine:
            for name in ("a", "b", "new"):
                await engine.signal(name, "end", 1)
                assert (await engine.result(name)).unwrap() == [SECRET, 1]

    run(main)


def test_what_the_codec_cannot_encode_is_not_recorded_and_may_be_tried_again(path: Path) -> None:
    class Flaky(Cipher):
        broken = True

        def encode(self, data: bytes) -> bytes:
            if self.broken:
                raise OSError("the key service does not answer")
            return super().encode(data)

    async def main() -> None:
        codec = Flaky(b"right")
        async with served(path, failing, codec=codec) as engine:
            with pytest.raises(errors.NotRecorded, match="key service"):
                await engine.start("failing", SECRET, "a")
            codec.broken = False
            await engine.start("failing", SECRET, "a")
            assert (await engine.result("a")).state == "failed"

    run(main)


def test_large_sealed_values_are_removed_with_their_run(path: Path) -> None:
    async def main() -> None:
        async with served(path, story, codec=RIGHT, retention=[Keep(0.001)]) as engine:
            await engine.start("story", SECRET, "a")
            await engine.signal("a", "end")
            await engine.result("a")
            assert engine._executive.store.rows("SELECT count(*) FROM payloads") != [(0,)]
            await asyncio.sleep(0.01)
            assert await engine._retention.sweep() == 1
            assert engine._executive.store.rows("SELECT count(*) FROM payloads") == [(0,)]

    run(main)
