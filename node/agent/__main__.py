"""`python -m node.agent guard|agent [--config FILE]`: a machine's processes. `heir`: a guard started by an agent."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from node import log
from node.settings import SettingsError, load


def main() -> int:
    """Run one of them; answers the exit code, 2 for wrong settings."""
    parser = argparse.ArgumentParser(prog="node.agent")
    parser.add_argument("part", choices=("guard", "heir", "agent"))
    parser.add_argument("--config", type=Path)
    args = parser.parse_args()
    try:
        settings = load(args.config)
    except SettingsError as e:
        sys.stderr.write(f"fleet: {e}\n")
        return 2
    log.configure("agent" if args.part == "agent" else "guard", settings.log_level)
    if args.part == "agent":
        from node.agent import app

        return int(app.run(settings))
    from node.agent import guardapp

    return guardapp.run(settings, heir=args.part == "heir")


if __name__ == "__main__":
    sys.exit(main())
