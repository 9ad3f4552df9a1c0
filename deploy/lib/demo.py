"""What `./deploy/demo` runs once everything is installed."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = Path("/usr/share/doc")
ARCHIVE_LIMIT_BYTES = 60 << 20
DOCUMENT_LIMIT = 2000
TENANT = "library"
RUN = "ingest-1"
BATCH = 10


class Untrue(Exception):
    """Something that the demo says turned out not to be so."""


def say(text: str) -> None:
    """A line of the story."""
    print(text, flush=True)


@contextlib.contextmanager
def part(title: str) -> Iterator[None]:
    """A part of the story, with how long it took."""
    say(f"\n== {title}")
    begin = time.monotonic()
    yield
    say(f"   ({time.monotonic() - begin:.1f} s)")


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nothing listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def free_block(size: int) -> int:
    """The first of so many ports in a row that nothing listens on: the embedded store takes ten."""
    for base in range(17090, 32000, size):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(base, base + size):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return base
    raise Untrue(f"there are no {size} free ports in a row")


class Fleet:
    """`fleet serve` in a state folder of its own, and the commands that a user would type."""

    def __init__(self, state: Path) -> None:
        controller, agent, gateway = free_ports(3)
        self.state = state
        self.gateway = f"http://127.0.0.1:{gateway}"
        self.run_dir = Path(f"/run/fleet-{hashlib.sha256(str(state).encode()).hexdigest()[:8]}")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("FLEET_", "AWS_"))} | {
            "FLEET_STATE_DIR": str(state),
            "FLEET_CONTROLLER": f"http://127.0.0.1:{controller}",
            "FLEET_CONTROLLER_LISTEN": f"127.0.0.1:{controller}",
            "FLEET_AGENT_LISTEN": f"127.0.0.1:{agent}",
            "FLEET_GATEWAY_LISTEN": f"127.0.0.1:{gateway}",
            "FLEET_STORE_PORT": str(free_block(10)),
        }
        self.log = state / "serve.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start `fleet serve` and wait until it is ready."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [fleet_program(), "serve"], env=self.env, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + 90
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                answer = urllib.request.urlopen(self.env["FLEET_CONTROLLER"] + "/readyz", timeout=2)
                if json.load(answer).get("nodes_ready"):
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise Untrue(f"fleet serve did not get ready; the end of its log:\n{self.tail()}")

    def tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])

    def __call__(self, *words: str, check: bool = True) -> Any:
        """Run a command as a user would; answers its JSON."""
        say(f"$ fleet {' '.join(words)}")
        done = subprocess.run(
            [fleet_program(), *words, "-o", "json"], env=self.env, stdout=subprocess.PIPE, text=True, check=False
        )
        if check and done.returncode != 0:
            raise Untrue(f"fleet {words[0]} ended with {done.returncode}; the end of the log:\n{self.tail()}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def quiet(self, *words: str) -> Any:
        """The same without showing it; None when it fails (a tenant that is on its way back)."""
        done = subprocess.run([fleet_program(), *words, "-o", "json"], env=self.env, capture_output=True, text=True)
        return json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else None

    def stop(self) -> None:
        """SIGTERM: everything is released in order."""
        if self.process is not None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(120)

    def remove(self) -> None:
        """Leave no container, network or volume behind."""
        subprocess.run([sys.executable, "-m", "node.agent", "teardown"], env=self.env, check=False)
        shutil.rmtree(self.run_dir, ignore_errors=True)
        shutil.rmtree(self.state, ignore_errors=True)


def fleet_program() -> str:
    """The console script beside this interpreter."""
    return str(Path(sys.executable).with_name("fleet"))


def docker(*words: str) -> str:
    """The engine's own command line: the demo kills behind the product's back."""
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout


def pack(path: Path) -> int:
    """An archive of this machine's documents; answers how many."""
    count = size = 0
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for file in sorted(DOCUMENTS.rglob("*")):
            if not file.is_file() or file.is_symlink() or file.stat().st_size > 2 << 20:
                continue
            size += file.stat().st_size
            if size > ARCHIVE_LIMIT_BYTES or count >= DOCUMENT_LIMIT:
                break
            tar.add(file, str(file.relative_to(DOCUMENTS)))
            count += 1
    return count


def upload(url: str, path: Path) -> dict[str, Any]:
    """PUT the archive to the tenant, through the gateway."""
    host, _, rest = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=120)
    with path.open("rb") as f:
        headers = {"Content-Length": str(path.stat().st_size)}
        connection.request("PUT", f"/{rest.rstrip('/')}/documents/archive", f, headers)
        answer = connection.getresponse()
        body: dict[str, Any] = json.loads(answer.read())
    if answer.status != 200:
        raise Untrue(f"the upload was answered {answer.status}: {body}")
    return body


def get(url: str) -> Any:
    """GET JSON."""
    return json.load(urllib.request.urlopen(url, timeout=30))


def finished_steps(fleet: Fleet) -> dict[str, Any]:
    """Steps of the run that have their result in the log, by their place in it."""
    found = fleet.quiet("history", TENANT, RUN) or []
    return {str(e["seq"]): e for e in found if e["kind"] == "activity_completed"}


def wait_for_steps(fleet: Fleet, more_than: int, limit_s: float = 120) -> dict[str, Any]:
    """Wait until the log shows more than so many finished steps."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        steps = finished_steps(fleet)
        if len(steps) > more_than:
            return steps
        time.sleep(0.05)
    raise Untrue(f"no progress past {more_than} steps within {limit_s:g} s")


def main_job(fleet: Fleet, work: Path) -> None:
    """The story. Raises Untrue at the first thing that is not so."""
    with part("A tenant comes up: the example deploy/examples/docsearch, rpo 0"):
        view = fleet(
            "up", TENANT, "--app", str(ROOT / "deploy/examples/docsearch"), "--db", "docs.db", "--rpo", "0",
            "--memory", "256m", "--cpus", "1", "--access", "open",
        )  # fmt: skip
        url = view["url"].rstrip("/")
        say(f"   it answers at {url}")
    with part(f"It is given the documents of this machine, {DOCUMENTS}"):
        archive = work / "documents.tar.gz"
        count = pack(archive)
        received = upload(url, archive)
        say(f"   {count} documents, {archive.stat().st_size >> 10} KiB sent; stored and in the bucket: {received}")
    with part("It works: a workflow indexes them in durable steps"):
        order = json.dumps({"batch_documents": BATCH})
        fleet("run", TENANT, "ingest", "--id", RUN, "--input", order)
        before_kill = wait_for_steps(fleet, 5)
        say(f"   {len(before_kill)} steps are finished")
    with part("Its worker is killed (SIGKILL) in the middle of it"):
        docker("kill", "-s", "KILL", f"{fleet.run_dir.name}-{TENANT}-worker")
        begin = time.monotonic()
        after_kill = wait_for_steps(fleet, len(finished_steps(fleet) or before_kill))
        say(f"   it goes on: {len(after_kill)} steps are finished, {time.monotonic() - begin:.1f} s later")
        keeps(before_kill, after_kill)
    with part("The whole node is lost: its containers and its agent killed, its volume gone"):
        lose_node(fleet)
        begin = time.monotonic()
        back = wait_for_steps(fleet, len(after_kill) - 1, 180)
        view = fleet.quiet("status", TENANT)
        say(f"   {TENANT} is back from the bucket after {time.monotonic() - begin:.1f} s, epoch {view['epoch']}")
        for phase in view["phases"]:
            size = f", {phase['size_bytes'] >> 10} KiB" if phase.get("size_bytes") else ""
            say(f"     {phase['name']:<10} {phase['duration_s']:.2f} s{size}")
        keeps(after_kill, back)
        say(f"   the log still has all {len(after_kill)} steps that were finished before")
    with part("The job is finished, and no finished step was repeated"):
        ended = fleet("run", TENANT, "ingest", "--id", RUN, "--input", order, "--wait")
        prove(fleet, url, ended, count, back)


def lose_node(fleet: Fleet) -> None:
    """SIGKILL every process of the node, then throw its disk away: what is left is the bucket and the controller."""
    for lock in ("guard.lock", "agent.lock"):
        kill_holder(fleet.run_dir / lock)
    names = docker("ps", "-aq", "--filter", f"name=^{fleet.run_dir.name}-").split()
    docker("rm", "-f", *names)
    volume = fleet.state / "t" / TENANT
    if not volume.is_dir():
        raise Untrue(f"there is no volume {volume}")
    for line in reversed(Path("/proc/mounts").read_text().splitlines()):
        if line.split()[1].startswith(f"{volume}/"):
            subprocess.run(["umount", "--lazy", line.split()[1]], check=True)
    shutil.rmtree(volume)
    say(f"   killed: guard, agent and {len(names)} containers; removed: {volume}")


def kill_holder(lock: Path) -> None:
    """SIGKILL the process that holds a lock file of this fleet."""
    inode = lock.stat().st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
            os.kill(int(fields[4]), signal.SIGKILL)


def keeps(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Every step that was finished is still there, with the same result, at the same place in the log."""
    changed = [seq for seq, event in before.items() if after.get(seq) != event]
    if changed:
        raise Untrue(f"finished steps are gone or were done again: log places {', '.join(changed)}")


def prove(fleet: Fleet, url: str, ended: dict[str, Any], count: int, back: dict[str, Any]) -> None:
    """The log, the counts, and a search."""
    final = finished_steps(fleet)
    keeps(back, final)
    stats = get(f"{url}/stats")
    say(f"   the run is {ended['state']}: {ended['result']}; {stats}")
    indexed = stats["indexed"] + stats["skipped"]
    if ended["state"] != "completed" or indexed != count or stats["waiting"]:
        raise Untrue(f"{count} documents were sent, {indexed} are done, {stats['waiting']} wait")
    keys = [e["body"].get("key") or e["body"].get("step") or seq for seq, e in final.items()]
    if len(set(map(str, keys))) != len(keys):
        raise Untrue("a step has two results in the log")
    repeated = stats["executions"] - stats["steps_finished"]
    say(f"   {len(final)} steps in the log, each with one result; executions cut short and done again: {repeated}")
    for line in fleet.quiet("history", TENANT, RUN)[:4]:
        say(f"     {line['seq']:>4} {line['at']} {line['kind']:<20} {json.dumps(line['body'])[:90]}")
    found = get(f"{url}/search?q=copyright+license&limit=3")["results"]
    for hit in found:
        say(f"   search 'copyright license': {hit['path']}: {hit['snippet'][:80]!r}")
    if not found:
        raise Untrue("a search for 'copyright license' finds nothing")


def main() -> int:
    """Run the demo; answers the exit code."""
    parser = argparse.ArgumentParser(prog="deploy/demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave it running, and print how to reach and stop it")
    args = parser.parse_args()
    with part("Images"):
        subprocess.run([str(ROOT / "images/build")], check=True)
    base = Path(tempfile.mkdtemp(prefix="fleet-demo-", dir="/var/tmp"))
    fleet = Fleet(base)
    done = False
    try:
        with part("fleet serve: embedded bucket, controller, guard and agent on this machine"):
            fleet.start()
            say(f"   state in {fleet.state}")
        main_job(fleet, base)
        done = True
        say("\nEverything above was checked, and true.")
    except (Untrue, subprocess.CalledProcessError, OSError) as e:
        say(f"\nNOT TRUE: {e}\nThe last words of the tenant and of the fleet:")
        subprocess.run([fleet_program(), "logs", TENANT, "-n", "60"], env=fleet.env, check=False)
        say(fleet.tail())
    finally:
        if args.keep and done:
            keep(fleet)
        else:
            with part("Cleaning up"):
                fleet.stop()
                fleet.remove()
    return 0 if done else 1


def keep(fleet: Fleet) -> None:
    """How to reach what runs, and how to stop it."""
    names = ("FLEET_STATE_DIR", "FLEET_CONTROLLER", "FLEET_CONTROLLER_LISTEN", "FLEET_AGENT_LISTEN", "FLEET_STORE_PORT")
    exports = " ".join(f"{n}={fleet.env[n]}" for n in (*names, "FLEET_GATEWAY_LISTEN"))
    pid = fleet.process.pid if fleet.process else 0
    say(f"\nLeft running:\n  tenant      {fleet.gateway}/t/{TENANT}/search?q=copyright")
    say(f"  controller  {fleet.env['FLEET_CONTROLLER']}/openapi.json\n  commands    export {exports}")
    say(f"  to stop     kill {pid}; then: {sys.executable} -m node.agent teardown; rm -r {fleet.state}")


if __name__ == "__main__":
    sys.exit(main())
