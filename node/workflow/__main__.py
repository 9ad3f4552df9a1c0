"""`python -m node.workflow replay FILE --code app.py`: does this code fit the runs of that log?"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import apsw

from node.workflow.core.definition import Workflow
from node.workflow.errors import WorkflowError
from node.workflow.log.replayfile import replay_file

FITS, DOES_NOT_FIT, CANNOT_TELL = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns 0 when all fit, 1 when one does not, 2 when that can't be told."""
    parser = argparse.ArgumentParser(prog="python -m node.workflow", description=__doc__)
    commands = parser.add_subparsers(required=True)
    replay = commands.add_parser("replay", help="run the histories of a log against code, with no side effect")
    replay.add_argument("file", type=Path, help="a log, or a copy of one; it is not changed")
    replay.add_argument("--code", type=_code, required=True, help="the Python file that declares the workflows")
    replay.add_argument("--run", action="append", default=[], metavar="ID", help="this run only; may be repeated")
    replay.add_argument("--closed", action="store_true", help="those that have ended too")
    options = parser.parse_args(arguments)
    try:
        return _replay(options.file, options.code, options.run, options.closed)
    except (WorkflowError, apsw.Error, OSError, ImportError) as error:
        sys.stderr.write(f"{options.file}: {error}\n")
        return CANNOT_TELL


def _replay(file: Path, code: Path, run_ids: Sequence[str], closed: bool) -> int:
    count = misfits = 0
    for replayed in replay_file(file, _workflows(code), run_ids, closed=closed):
        count += 1
        if replayed.problem is not None:
            misfits += 1
            sys.stdout.write(f"{replayed.run_id} ({replayed.workflow}) {replayed.verdict}: {replayed.problem}\n")
    sys.stderr.write(f"{count} replayed, {misfits} do not fit\n")
    return DOES_NOT_FIT if misfits else FITS


def _code(text: str) -> Path:
    path = Path(text.partition(":")[0])
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{path} is no file")
    return path


def _workflows(path: Path) -> list[Workflow]:
    """The workflows that a Python file declares. Its folder and the folder `vendor` in it can be imported from."""
    for folder in (path.parent / "vendor", path.parent):
        sys.path.insert(0, str(folder.resolve()))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list({id(v): v for v in vars(module).values() if isinstance(v, Workflow)}.values())


if __name__ == "__main__":
    sys.exit(main())
