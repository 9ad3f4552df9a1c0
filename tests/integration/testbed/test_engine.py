"""The tests' own engine: apart from the machine's, with the product's images."""

from __future__ import annotations

import subprocess
from pathlib import Path

import docker
import pytest

from tests.testbed.engine import Engine
from tests.testbed.private import host_network, inside

pytestmark = pytest.mark.engine


def test_it_is_not_the_machines_engine(docker_client: docker.DockerClient) -> None:
    assert docker_client.info()["DockerRootDir"] != "/var/lib/docker"
    assert docker_client.containers.list(all=True) == []


def test_its_network_has_nothing_of_the_machines(engine: Engine) -> None:
    assert inside()
    names = {path.name for path in Path("/proc/self/net/dev_snmp6").iterdir()}
    assert "eth0" not in names
    routes = subprocess.run(["ip", "route", "show", "default"], capture_output=True, text=True, check=True)
    assert routes.stdout == ""


def test_the_machines_network_is_there_for_what_fetches(engine: Engine) -> None:
    here = Path("/proc/self/ns/net").readlink()
    outside = subprocess.run(
        host_network(["readlink", "/proc/self/ns/net"]), capture_output=True, text=True, check=True
    )
    assert outside.stdout.strip() != str(here)


def test_its_containers_run_the_products_images(docker_client: docker.DockerClient, images: str) -> None:
    said = docker_client.containers.run("fleet/sidecar:latest", ["version"], remove=True)
    assert b"0.5.17" in said


def test_it_keeps_its_images_over_a_kill(engine: Engine, images: str) -> None:
    before = {image.id for image in engine.client().images.list()}
    engine.kill()
    engine.start()
    assert {image.id for image in engine.client().images.list()} == before
