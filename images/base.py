"""Where the images' Debian comes from: a registry that answers, or the host's mmdebstrap."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import docker
import docker.errors

REGISTRY_IMAGE = "debian:bookworm-slim"
REGISTRY = "https://registry-1.docker.io/v2/"
# Part of the name of a locally built base: raise it when the options below change.
LOCAL_VERSION = 2
_DROPPED = ("doc", "man", "locale", "info", "lintian", "bug", "zoneinfo")
_HOOKS = (
    'rm -rf "$1"/var/lib/apt/* "$1"/var/cache/* "$1"/var/log/* "$1"/usr/lib/*/gconv',
    'rm -rf "$1"/usr/share/python3/runtime.d "$1"/usr/lib/python3*/__pycache__',
)
# Debian prefers usrmerge to usr-is-merged, and usrmerge brings all of Perl.
_NO_PERL = (
    'mkdir -p "$1"/etc/apt/preferences.d && '
    'printf "Package: usrmerge\\nPin: release *\\nPin-Priority: -1\\n" > "$1"/etc/apt/preferences.d/no-perl'
)


class BuildFailed(Exception):
    """An image cannot be built; the message says what to do."""


def cache_dir() -> Path:
    """Folder of what is slow to make again: `FLEET_CACHE`, else `~/.cache/fleet`."""
    path = Path(os.environ.get("FLEET_CACHE") or Path.home() / ".cache" / "fleet")
    path.mkdir(parents=True, exist_ok=True)
    return path


def find(client: docker.DockerClient, packages: tuple[str, ...], where: str, *, fresh: bool) -> str:
    """The name of a base image in the engine. `where`: auto | registry | local; `fresh`: with today's security updates.

    Raises BuildFailed.
    """
    if where != "local" and _registry(client, must=where == "registry", fresh=fresh):
        return REGISTRY_IMAGE
    name = f"fleet-base:bookworm-{'-'.join(packages)}-{LOCAL_VERSION}"
    if fresh or not exists(client, name):
        repository, tag = name.split(":")
        client.api.import_image(str(_tarball(packages, fresh=fresh)), repository=repository, tag=tag)
    return name


def exists(client: docker.DockerClient, name: str) -> bool:
    """Whether the engine has an image."""
    try:
        client.images.get(name)
    except docker.errors.ImageNotFound:
        return False
    return True


def _registry(client: docker.DockerClient, *, must: bool, fresh: bool) -> bool:
    """Whether the engine has Debian's image or can pull it. The probe is short: without an answer there is a way."""
    if not fresh and exists(client, REGISTRY_IMAGE):
        return True
    try:
        urllib.request.urlopen(REGISTRY, timeout=3)
    except urllib.error.HTTPError as e:
        answers = e.code == 401  # what a registry says to who has not logged in
    except OSError:
        answers = False
    else:
        answers = True
    if answers or must:
        try:
            client.images.pull(REGISTRY_IMAGE)
        except docker.errors.DockerException as e:
            if must:
                raise BuildFailed(f"cannot pull {REGISTRY_IMAGE}: {e}") from e
            return False
    return answers or must


def _tarball(packages: tuple[str, ...], *, fresh: bool) -> Path:
    """Debian's essential packages and `packages` with its security updates, built once on this machine."""
    path = cache_dir() / f"bookworm-{'-'.join(packages)}-{LOCAL_VERSION}.tar"
    if path.exists() and not fresh:
        return path
    if shutil.which("mmdebstrap") is None:
        raise BuildFailed("no registry answers and no mmdebstrap is here: apt-get install mmdebstrap")
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        partial = Path(scratch) / path.name
        command = [
            "mmdebstrap",
            "--quiet",
            "--variant=essential",
            f"--include={','.join((*packages, 'usr-is-merged'))}",
        ]
        command += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _DROPPED]
        command += [f"--customize-hook={hook}" for hook in _HOOKS]
        command += ["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", f"--setup-hook={_NO_PERL}"]
        done = subprocess.run([*command, "bookworm", str(partial)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            text = "mmdebstrap failed; is deb.debian.org reachable, and debian-archive-keyring installed?"
            raise BuildFailed(f"{text} {done.stderr.strip()[-800:]}")
        partial.rename(path)
    return path
