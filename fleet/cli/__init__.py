"""The command line: a client of the controller's API. Only `serve`, `node` and `doctor` touch the machine itself.

Modules are imported when their command is used: a command costs little more than its request.
"""

from __future__ import annotations

import gc
import os
import sys
import threading


def main() -> None:
    """Entry of the console script `fleet`."""
    gc.disable()  # what is imported stays: looking for garbage in it would find none
    from fleet.cli.main import run

    gc.freeze()
    gc.enable()
    try:
        run()
    except SystemExit as e:
        if isinstance(e.code, int) and threading.active_count() == 1:
            _leave(e.code)
        raise


def _leave(code: int) -> None:
    """End at once: taking the interpreter apart costs a fifth of a short command."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return  # whoever read it is gone: the usual way out deals with that
    os._exit(code)
