"""The command line: a client of the controller's API. Only `serve`, `node` and `doctor` touch the machine itself.

Modules are imported when their command is used: a command costs little more than its request.
"""

from __future__ import annotations


def main() -> None:
    """Entry of the console script `fleet`."""
    from fleet.cli.main import run

    run()
