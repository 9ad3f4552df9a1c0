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
ALWAYS = ("RunsCurrent", "AckHeld", "RanHasData", "NotLost", "LineageTrue", "CarriedWhole", "Lossless")
POWER = '{"machine", "powerloss", "olddisk", "giveup", "list"}'
POWER_AND_AGENT = POWER.replace("}", ', "agent"}')  # a claim that came no further than its record is made again

SHORT = (
    Hold("lease-shared", "Lease", {"TTL": "2", "MAXSEQ": "2"}, at_least=50_000),
    Hold(
        "lease-solo-to-shared",
        "Lease",
        {"TTL": "2", "MAXSEQ": "2", "FIRST": '"solo"', "SWITCHES": "1"},
        at_least=50_000,
    ),
    Hold("two-nodes", "Ownership", {"MAXW": "1", "MAXSES": "2", "MAXEP": "2"}, at_least=15_000),
    Hold(
        "two-files-that-lose-power",
        "Ownership",
        TWO_FILES | {"Nodes": "{a}", "KINDS": POWER, "FAULTS": "2", "MAXEP": "2", "MAXSES": "2"},
        at_least=10_000,
    ),
    Hold(
        "pauses-lose-nothing",
        "Ownership",
        {"KINDS": '{"pause", "bothdie"}', "MAXSES": "1", "MAXEP": "2", "SLEEPS": "0"},
        invariants=ALWAYS,
        at_least=1_000,
    ),
    Hold(
        "carried-under-a-new-epoch",
        "Ownership",
        {"RPO": '"async"', "Nodes": "{a}", "KINDS": POWER_AND_AGENT, "FAULTS": "2"},
        at_least=20_000,
    ),
    Hold(
        "comes-back",
        "Ownership",
        {"KINDS": '{"timeout"}', "MAXW": "1", "SLEEPS": "0"},
        properties=("ComesBack",),
        at_least=100,
    ),
)


def _long(name: str, module: str, at_least: int, prop: str = "", /, **sets: str) -> Hold:
    return Hold(name, module, sets, properties=(prop,) if prop else (), at_least=at_least, thorough=True)


LONG = (
    _long("lease-shared", "Lease", 600_000),
    _long("lease-drift", "Lease", 600_000, TTL="4", M="2", DRIFT="1", DEATHS="0"),
    _long("lease-solo-and-back", "Lease", 500_000, FIRST='"solo"', SWITCHES="2", DEATHS="1"),
    _long("lease-found-dead", "Lease", 50_000, "DeadIsSeen", MAXSEQ="2"),
    _long("two-nodes", "Ownership", 90_000),
    _long("two-faults", "Ownership", 300_000, FAULTS="2", MAXW="1"),
    _long("two-files", "Ownership", 100_000, **TWO_FILES, MAXSES="2"),
    _long("three-nodes", "Ownership", 50_000, Nodes="{a, b, c}", MAXW="1", MAXSES="2"),
    _long("comes-back", "Ownership", 5_000, "ComesBack", MAXW="1", SLEEPS="0", MAXEP="4", MAXSES="4"),
    _long("one-in-the-end", "Ownership", 5_000, "OneInTheEnd", KINDS='{"pause"}', MAXW="1", SLEEPS="0"),
)
