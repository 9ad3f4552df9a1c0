"""Runs the measurements: every module beside this one that has a `run`, or those that are named."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import platform
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from tests import bench


def subjects() -> list[str]:
    """The names of all measurements."""
    names = [module.name for module in pkgutil.iter_modules(bench.__path__) if not module.name.startswith("_")]
    return sorted(name for name in names if hasattr(importlib.import_module(f"tests.bench.{name}"), "run"))


def main() -> int:
    """Measure; 0 when everything could be measured, whether or not its bound is kept."""
    parser = argparse.ArgumentParser(prog="tests/run bench", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, help="write the figures as JSON too")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller data: to see that it works")
    known = subjects()
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(known)):
        parser.error(f"no measurement {', '.join(unknown)}; there are {', '.join(known)}")
    figures: list[dict[str, Any]] = []
    failed: list[str] = []
    for name in options.names or known:
        print(f"== {name}", flush=True)
        try:
            for figure in importlib.import_module(f"tests.bench.{name}").run(quick=options.quick):
                print(figure.line(), flush=True)
                figures.append({"subject": name, **figure.as_json()})
        except Exception:  # noqa: BLE001 - the others are still worth measuring
            traceback.print_exc()
            failed.append(name)
        if options.output:
            options.output.write_text(json.dumps({**_machine(), "figures": figures, "failed": failed}, indent=1) + "\n")
    missed = [f"{one['subject']}: {one['name']}" for one in figures if one["kept"] is False]
    print(f"{len(figures)} figures, {len(missed)} missed their bound, {len(failed)} could not be measured")
    for one in (*missed, *failed):
        print(f"  {one}")
    return 1 if failed else 0


def _machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpus": os.cpu_count(),
        "memory_bytes": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    sys.exit(main())
