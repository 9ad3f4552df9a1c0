"""Where the rules as built must hold: bounds, and the faults that may happen in them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Hold:
    """One complete search. `invariants` empty: all of the module's; `at_least` is what a search of these bounds has
    found, rounded down: a model that can do much less than that has lost something."""

    name: str
    module: str
    sets: dict[str, str] = field(default_factory=dict)
    invariants: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    at_least: int = 0
    thorough: bool = False


TWO_FILES = {"Files": '{"x", "y"}'}
# What holds even where two copies may run for a while: nothing that was acknowledged is lost, or mixed.
ALWAYS = ("RunsCurrent", "AckHeld", "RanHasData", "NotLost", "LineageTrue", "Lossless")
POWER = '{"machine", "powerloss", "olddisk", "giveup", "list"}'

SHORT = (
    Hold("lease-shared", "Lease", {"MAXSEQ": "2"}, at_least=200_000),
    Hold("lease-solo-to-shared", "Lease", {"MAXSEQ": "2", "FIRST": '"solo"', "SWITCHES": "1"}, at_least=100_000),
    Hold("two-nodes", "Ownership", {"MAXW": "1", "MAXSES": "2", "MAXEP": "2"}, at_least=70_000),
    Hold(
        "two-files-that-lose-power",
        "Ownership",
        TWO_FILES | {"Nodes": "{a}", "KINDS": POWER, "FAULTS": "2", "MAXEP": "2"},
        at_least=10_000,
    ),
    Hold(
        "pauses-lose-nothing",
        "Ownership",
        {"KINDS": '{"pause"}', "MAXSES": "1", "MAXEP": "2", "SLEEPS": "0"},
        invariants=ALWAYS,
        at_least=1_000,
    ),
    Hold(
        "kept-under-a-new-epoch",
        "Ownership",
        {"RPO": '"async"', "REBOOT": '"keep"', "Nodes": "{a}", "KINDS": POWER, "FAULTS": "2", "MAXEP": "2"},
        at_least=1_000,
    ),
)

LONG: tuple[Hold, ...] = ()
