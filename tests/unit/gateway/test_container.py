"""The gateway's container, pinned whole."""

from __future__ import annotations

from pathlib import Path

from node.agent.runtime.gateway_container import options


def test_everything_the_engine_is_told_is_as_pinned() -> None:
    folder = "/run/fleet/gateway"
    assert options("f1", "fleet/gateway:latest", Path(folder), 64990) == {
        "Image": "fleet/gateway:latest",
        "Cmd": ["-W", "-db", "-S", f"{folder}/run/master.sock,mode,600", "-f", f"{folder}/haproxy.cfg"],
        "User": "64990:64990",
        "Labels": {"fleet.gateway": "f1"},
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "Mounts": [
                {"Type": "bind", "Source": folder, "Target": folder, "ReadOnly": True},
                {"Type": "bind", "Source": f"{folder}/run", "Target": f"{folder}/run", "ReadOnly": False},
            ],
            "NetworkMode": "host",
            "IpcMode": "none",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "Memory": 1 << 30,
            "MemorySwap": 1 << 30,
            "PidsLimit": 256,
            "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
            "LogConfig": {"Type": "local", "Config": {"max-size": "4m", "max-file": "2", "compress": "false"}},
            "RestartPolicy": {"Name": "no"},
        },
    }
