"""Every example in the pages of the library runs as it stands, twice on the same file where it stands for a restart."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "node/workflow/docs"
PAGES = sorted(DOCS.glob("*.md"))
WITHOUT_CODE = {"promises", "terms"}


def code(page: Path) -> str:
    """The page's Python, in order."""
    return "\n\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))


@pytest.mark.parametrize("page", [p for p in PAGES if p.stem not in WITHOUT_CODE], ids=lambda page: page.stem)
def test_the_example_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    program = tmp_path / "example.py"
    program.write_text(code(page))
    assert program.read_text().strip(), "a page without an example"
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_guide_says_what_it_prints_and_prints_it_again_from_the_log(tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(code(DOCS / "README.md"))
    for _ in range(2):
        command, env = [sys.executable, "example.py"], {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout == "hello world\n"


def test_every_page_is_reached_from_the_guide_and_every_link_leads_somewhere() -> None:
    linked = set(re.findall(r"\]\(([a-z-]+\.md)\)", (DOCS / "README.md").read_text()))
    assert linked == {page.name for page in PAGES} - {"README.md"}
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert (DOCS / target).resolve().exists(), f"{page.name} links {target}"
