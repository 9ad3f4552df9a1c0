"""The rules that a program can check."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE_LINES = 500
FUNCTION_LINES = 60
_EXCEPTION = re.compile(r"#\s*(noqa|type:\s*ignore)\b(?P<rest>.*)")
_REASON = re.compile(r"^(:\s*[A-Z]+[0-9]+(,\s*[A-Z]+[0-9]+)*|\[[a-z-]+(,\s*[a-z-]+)*\])[\s#:–-]+\w")


def files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _is_overload(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    return any(ast.unparse(decorator) in ("overload", "typing.overload") for decorator in node.decorator_list)


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["lint-imports"],
    ],
    ids=" ".join,
)
def test_a_tool_has_nothing_to_say(command: list[str]) -> None:
    tool = Path(sys.executable).with_name(command[0])
    said = subprocess.run([tool, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert said.returncode == 0, f"\n{said.stdout}{said.stderr}"


def test_no_file_is_too_long() -> None:
    long = {str(p.relative_to(ROOT)): n for p in files() if (n := len(p.read_text().splitlines())) > FILE_LINES}
    assert long == {}


def test_every_function_fits_a_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{one.lineno} {one.name}: {length} lines"
        for path in files()
        for one in functions(path)
        if (length := (one.end_lineno or one.lineno) - one.lineno + 1) > FUNCTION_LINES
    ]
    assert long == []


def test_every_exception_from_a_rule_names_it_and_says_why() -> None:
    silent = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (found := _EXCEPTION.search(line)) and not _REASON.match(found["rest"])
    ]
    assert silent == []


def test_every_public_name_of_the_product_is_documented() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in files()
        if path.relative_to(ROOT).parts[0] in ("fleet", "node")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if not node.name.startswith("_") and ast.get_docstring(node) is None and not _is_overload(node)
    ]
    assert bare == []


def test_every_folder_of_tests_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    assert [str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").exists()] == []


def test_every_shell_script_is_valid() -> None:
    for name in ("tests/run", "deploy/lib/install", "deploy/demo", ".ci/run", "images/build"):
        said = subprocess.run(["bash", "-n", ROOT / name], capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stderr
