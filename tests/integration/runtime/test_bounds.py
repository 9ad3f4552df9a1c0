"""From inside of a container: what a tenant must not get past."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.integration.runtime.conftest import Bench

pytestmark = pytest.mark.engine

TRY = """
def attempt(what, call):
    try:
        call()
    except Exception as e:
        print(what, type(e).__name__, getattr(e, 'errno', ''))
    else:
        print(what, 'DONE')
"""


def test_the_root_is_read_only_and_only_data_and_scratch_can_be_written(bench: Bench) -> None:
    code = f"""{TRY}
import os
for path in ('/x', '/usr/x', '/etc/passwd', '/run/x', '/run/fleet/x', '/var/x', '/proc/sys/kernel/hostname', '/sys/x'):
    attempt(path, lambda: open(path, 'w'))
for path in ('/data/x', '/tmp/x', '/scratch/x', '/dev/shm/x'):
    attempt(path, lambda: open(path, 'w'))
"""
    said = bench.says(bench.worker("acme", code, writable=("/scratch",)))
    assert [line.split()[1] for line in said[:8]].count("DONE") == 0
    assert said[8:] == ["/data/x DONE", "/tmp/x DONE", "/scratch/x DONE", "/dev/shm/x DONE"]


def test_there_are_no_capabilities_and_none_to_be_had(bench: Bench) -> None:
    code = f"""{TRY}
import os, socket
for line in open('/proc/self/status'):
    if line.startswith(('Cap', 'NoNewPrivs', 'Seccomp:', 'Uid', 'Groups')):
        print(' '.join(line.split()))
attempt('setuid', lambda: os.setuid(0))
attempt('chown', lambda: (open('/data/f', 'w').close(), os.chown('/data/f', 0, 0)))
attempt('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
attempt('packet', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
attempt('mknod', lambda: os.mknod('/data/disk', 0o60600, os.makedev(8, 0)))
attempt('chroot', lambda: os.chroot('/data'))
"""
    spec = bench.worker("acme", code)
    said = bench.says(spec)
    empty = "0" * 16
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert f"{name}: {empty}" in said
    assert "NoNewPrivs: 1" in said
    assert "Seccomp: 2" in said
    assert f"Uid: {spec.uid} {spec.uid} {spec.uid} {spec.uid}" in said
    attempts = [line for line in said if line.split()[0] in ("setuid", "chown", "raw", "packet", "mknod", "chroot")]
    assert len(attempts) == 6
    assert not [line for line in attempts if "DONE" in line]


def test_a_setuid_program_gives_no_other_user(bench: Bench) -> None:
    code = """
import os, shutil, subprocess
shutil.copy('/usr/bin/id', '/data/id'); os.chmod('/data/id', 0o6755)
print(subprocess.run(['/bin/su', '-c', 'id -u', 'root'], capture_output=True, text=True, input='').returncode != 0)
print(subprocess.run(['/data/id', '-u'], capture_output=True, text=True).stdout.strip())
"""
    spec = bench.worker("acme", code)
    assert bench.says(spec) == ["True", str(spec.uid)]


def test_a_fork_bomb_meets_its_bound_and_the_neighbour_goes_on(bench: Bench) -> None:
    neighbour = bench.run(
        bench.worker("beta", "import time\nfor _ in range(6000): print('tick', flush=True); time.sleep(0.1)")
    )
    code = """
import os, time
made = 0
for _ in range(500):
    try:
        if os.fork() == 0:
            time.sleep(60); os._exit(0)
        made += 1
    except OSError as e:
        print('refused', e.errno, made); break
"""
    said = bench.says(bench.worker("acme", code, pids=32))
    assert said[-1].startswith("refused 11 ")
    assert int(said[-1].split()[2]) < 32
    before = len(bench.log(neighbour.name))
    for _ in range(300):
        if len(bench.log(neighbour.name)) > before:
            return
        time.sleep(0.1)
    raise AssertionError("the neighbour stands still")


def test_a_memory_hog_is_killed_and_told_apart(bench: Bench) -> None:
    spec = bench.worker("acme", "x = bytearray(1 << 30); print('HAD IT')", memory_bytes=64 << 20)
    name = bench.runtime.create(spec)
    bench.runtime.start(name)
    assert b"HAD IT" not in b"".join(bench.log(name, follow=True))
    found = bench.ended(name)
    assert found.oom_killed
    assert found.exit_code == 137


def test_scratch_in_memory_is_bounded_as_well(bench: Bench) -> None:
    code = f"""{TRY}
def fill(path):
    with open(path, 'wb') as f:
        for _ in range(200): f.write(bytes(1 << 20))
attempt('tmp', lambda: fill('/tmp/x'))
"""
    said = bench.says(bench.worker("acme", code, memory_bytes=128 << 20))
    assert said == ["tmp OSError 28"]


def test_the_disk_allowance_holds_for_bytes_and_for_files(bench: Bench) -> None:
    code = f"""{TRY}
import os
def fill():
    with open('/data/x', 'wb', buffering=0) as f:
        for n in range(1024): f.write(os.urandom(1 << 20))
attempt('bytes', fill)
print(os.path.getsize('/data/x') >> 20)
os.unlink('/data/x')
def many():
    for n in range(200000): open(f'/data/{{n}}', 'w').close()
attempt('files', many)
attempt('link', lambda: os.symlink('/proc/1/root', '/data/escape'))
"""
    said = bench.says(bench.worker("acme", code, disk_bytes=32 << 20))
    assert said[0] == "bytes OSError 28"
    assert 32 <= int(said[1]) <= 48
    assert said[2] == "files OSError 28"


def test_a_full_tenant_leaves_the_sidecars_folder_room(bench: Bench) -> None:
    code = f"""{TRY}
def fill():
    with open('/data/x', 'wb', buffering=0) as f:
        for _ in range(100): f.write(bytes(1 << 20))
attempt('bytes', fill)
"""
    spec = bench.worker("acme", code, disk_bytes=16 << 20)
    assert bench.says(spec) == ["bytes OSError 28"]
    (spec.volume.meta / "frame").write_bytes(bytes(4 << 20))


def test_credentials_are_nowhere_to_be_seen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-value")
    sidecar = bench.sidecar("acme")
    (sidecar.config / "litestream.yml").write_text("# hidden-value\ndbs: []\n")
    bench.runtime.start(bench.runtime.create(sidecar))
    code = """
import os
seen = repr(dict(os.environ))
for name in os.listdir('/proc'):
    if name.isdigit():
        for part in ('environ', 'cmdline', 'mountinfo'):
            try: seen += open(f'/proc/{name}/{part}').read()
            except OSError: pass
# In pieces: this program is on a command line itself.
print('hidden' + '-value' in seen, 'A' + 'WS' in seen, 'lite' + 'stream' in seen)
print(sorted(n for n in os.listdir('/proc') if n.isdigit())[:3])
hidden = ('/meta', '/etc/lite' + 'stream', '/run/docker.sock', '/run/secrets')
print([p for p in hidden if os.path.exists(p)])
print(sorted(os.listdir('/run/fleet')))
"""
    said = bench.says(bench.worker("acme", code))
    assert said[0] == "False False False"
    assert "'1'" in said[1]
    assert said[2:] == ["[]", "[]"]


def test_secrets_are_in_their_own_worker_alone_and_cannot_be_changed(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    uid = bench.uids.of("acme")
    (folder / "KEY").write_text("its-own")
    for path in (folder, folder / "KEY"):
        os.chown(path, uid, uid)
        path.chmod(0o500 if path.is_dir() else 0o400)
    code = f"""{TRY}
print(open('/run/secrets/KEY').read())
attempt('write', lambda: open('/run/secrets/KEY', 'w'))
attempt('unlink', lambda: __import__('os').unlink('/run/secrets/KEY'))
"""
    said = bench.says(bench.worker("acme", code, secrets=folder))
    assert said[0] == "its-own"
    assert not [line for line in said[1:] if "DONE" in line]
    other = f"{TRY}\nattempt('read', lambda: open('/run/secrets/KEY'))"
    assert bench.says(bench.worker("beta", other)) == ["read FileNotFoundError 2"]


def test_a_log_flood_is_bounded_on_disk(bench: Bench) -> None:
    code = "for n in range(400000): print(n, 'x' * 100)"
    name = bench.runtime.create(bench.worker("acme", code))
    bench.runtime.start(name)
    for _ in bench.runtime.logs(name, tail=0, since=None, follow=True):
        pass
    kept = b"\n".join(bench.log(name))
    assert b"399999 x" in kept
    assert len(kept) < 24 << 20


def test_the_clock_of_the_machine_can_not_be_set(bench: Bench) -> None:
    code = f"{TRY}\nimport time\nattempt('clock', lambda: time.clock_settime(time.CLOCK_REALTIME, 0))"
    assert bench.says(bench.worker("acme", code)) == ["clock PermissionError 1"]
