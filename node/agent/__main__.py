"""`python -m node.agent guard|agent [--config FILE]`: a machine's processes. `heir`: a guard started by an agent.

`check --json` looks at this machine instead: a list of findings on standard output. `teardown` removes what a stopped
fleet left on it.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from node import log
from node.settings import Settings, SettingsError, load


def main() -> int:
    """Run one of them; answers the exit code, 2 for wrong settings."""
    parser = argparse.ArgumentParser(prog="node.agent")
    parser.add_argument("part", choices=("guard", "heir", "agent", "check", "teardown"))
    parser.add_argument("--json", action="store_true", help="of check: findings as JSON")
    parser.add_argument("--config", type=Path)
    args = parser.parse_args()
    try:
        settings = load(args.config)
    except SettingsError as e:
        sys.stderr.write(f"fleet: {e}\n")
        return 2
    if args.part == "check":
        return _check(settings, as_json=args.json)
    if args.part == "teardown":
        from node.agent import teardown

        return teardown.run(settings)
    log.configure("agent" if args.part == "agent" else "guard", settings.log_level)
    if args.part == "agent":
        from node.agent import app

        return int(app.run(settings))
    from node.agent import guardapp

    return guardapp.run(settings, heir=args.part == "heir")


def _check(settings: Settings, *, as_json: bool) -> int:
    from node.agent.runtime import check

    found = check.examine(settings.state_dir, settings.image_prefix)
    if as_json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in found]) + "\n")
        return 0
    for finding in found:
        sys.stdout.write(f"{'ok  ' if finding.ok else 'FAIL'} {finding.name}: {finding.detail}\n")
        if finding.fix:
            sys.stdout.write(f"     {finding.fix}\n")
    return 0 if all(finding.ok for finding in found) else 1


if __name__ == "__main__":
    sys.exit(main())
