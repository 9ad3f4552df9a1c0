"""A supervisor of two stand-ins in a folder: `python supervisor.py FOLDER [refuse|mute|stubborn]`."""

import os
import sys
from pathlib import Path

from fleet.supervise import Refused, Service, Supervisor
from node import log

PART = """
import os, pathlib, signal, sys, time
name, folder, how = sys.argv[1:4]
def say(what):
    with open(folder + "/said", "a") as f:
        f.write(f"{name}-{what} ")
def end(*_):
    say("down")
    os._exit(0)
if how == "refuse":
    os._exit(2)
signal.signal(signal.SIGTERM, signal.SIG_IGN if how == "stubborn" else end)
signal.signal(signal.SIGHUP, lambda *_: say("reload"))
if how != "mute":
    say("up")
    pathlib.Path(folder, name + "-ready").touch()
while True:
    time.sleep(0.02)
"""

folder = Path(sys.argv[1])
how = sys.argv[2] if len(sys.argv) > 2 else "well"


def service(name: str, how: str, **options: bool) -> Service:
    mark = folder / f"{name}-ready"
    command = [sys.executable, "-c", PART, name, str(folder), how]
    return Service(name, command, dict(os.environ), ready=mark.exists, first=True, stop_s=1.0, **options)


for mark in folder.glob("*-ready"):
    if mark.name == "worker-ready":
        mark.unlink()
log.configure("supervisor")
services = [service("keeper", "well", lives_on=True, reloads=True), service("worker", how)]
try:
    Supervisor(folder, services, ready_s=3.0 if how == "mute" else 60.0).run((folder / "ready").touch)
except Refused as e:
    sys.stderr.write(f"{e}\n")
    sys.exit(1)
