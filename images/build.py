"""Builds `PREFIX/worker`, `PREFIX/sidecar` and `PREFIX/gateway`, each tagged by its content and `latest`."""

from __future__ import annotations

import argparse
import fcntl
import sys
import time

import docker
import docker.errors
from base import BuildFailed, cache_dir, exists, find
from inputs import IMAGES, Image


def build(client: docker.DockerClient, image: Image, prefix: str, where: str, *, fresh: bool) -> str:
    """Build one image unless the engine has it (`fresh`: also then); answers a line that says what was done.

    Raises BuildFailed.
    """
    started = time.monotonic()
    name = f"{prefix}/{image.name}"
    tag = f"{name}:{image.digest()}"
    made = ""
    if fresh or not exists(client, tag):
        with (cache_dir() / "build.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two builds at once would each fetch what one of them can
            if fresh or not exists(client, tag):
                _build(client, image, tag, where, fresh=fresh)
                made = f", built in {time.monotonic() - started:.1f} s"
    found = client.images.get(tag)
    found.tag(name, "latest")
    return f"{tag}  {found.attrs['Size'] / 1e6:.1f} MB{made}"


def _build(client: docker.DockerClient, image: Image, tag: str, where: str, *, fresh: bool) -> None:
    arguments = {"BASE": find(client, image.packages, where, fresh=fresh)} if image.packages else {}
    try:
        client.images.build(
            fileobj=image.archive(),
            custom_context=True,
            tag=tag,
            buildargs=arguments,
            rm=True,
            forcerm=True,
            nocache=fresh,
            labels={"fleet.image": image.name},
        )
    except docker.errors.BuildError as e:
        lines = "".join(line.get("stream", line.get("error", "")) for line in e.build_log)
        raise BuildFailed(f"{tag}: {e.msg}\n{lines[-2000:]}") from e


def main() -> int:
    """Build what is missing; 0 when all are there, 4 when an image cannot be built or no engine answers."""
    parser = argparse.ArgumentParser(prog="images/build", description=__doc__)
    parser.add_argument("--prefix", default="fleet", help="repository of the images (FLEET_IMAGE_PREFIX)")
    parser.add_argument("--base", choices=("auto", "registry", "local"), default="auto", help="where Debian comes from")
    parser.add_argument("--fresh", action="store_true", help="build again, with today's security updates of Debian")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="worker, sidecar, gateway; all when none is named")
    options = parser.parse_args()
    known = {image.name for image in IMAGES}
    if unknown := sorted(set(options.images) - known):
        parser.error(f"no image {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    try:
        client = docker.from_env(timeout=600)
        for image in IMAGES:
            if not options.images or image.name in options.images:
                sys.stdout.write(build(client, image, options.prefix, options.base, fresh=options.fresh) + "\n")
                sys.stdout.flush()
    except BuildFailed as e:
        sys.stderr.write(f"images/build: {e}\n")
        return 4
    except docker.errors.DockerException as e:
        sys.stderr.write(f"images/build: the engine does not answer or refuses: {e}\n")
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
