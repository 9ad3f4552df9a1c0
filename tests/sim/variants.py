"""The rules of ownership, each broken in one way: every one of these must show, or the simulator sees nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from fleet import leases as observer
from fleet.core import leading, silence
from fleet.core.drain import Turns
from fleet.leases import Leases
from node.agent.custody import (
    adopt,
    claim,
    collect,
    custody,
    durable,
    fleetfile,
    garbage,
    purge,
    release,
    restore,
    settle,
    take,
)
from node.agent.custody import position as positions
from node.agent.custody import session as rules
from node.agent.custody.guard import Guard
from node.agent.custody.registrar import Registrar
from node.agent.custody.session import Session
from node.bucket import cas, keys
from tests.sim import broken, world
from tests.sim.broken import nothing, replaced
from tests.sim.faults import CALM_S, KINDS, PAUSE, TENANTS, Fault, Script, draw
from tests.sim.judge import Kind
from tests.sim.world import AS_IS, Result, Rules

Plot = Callable[[random.Random], tuple[Fault, ...]]
PLAIN: frozenset[Kind] = frozenset({"always", "bounded", "settles"})
ALWAYS: frozenset[Kind] = frozenset({"always"})


@dataclass(frozen=True)
class Variant:
    """One rule that is not kept. `kinds`: what has to go wrong for it to show, or `plot`: in which order. `shows`: what
    counts; a machine whose clock stops with it breaks what is bounded anyhow."""

    name: str
    broken: Callable[[], AbstractContextManager[None]]
    kinds: Mapping[str, int] = field(default_factory=lambda: KINDS)
    plot: Plot | None = None
    rules: Rules = AS_IS
    shows: frozenset[Kind] = PLAIN
    solo: bool | None = None
    led: bool = False
    seeds: int = 200


def _failover(rng: random.Random) -> tuple[Fault, ...]:
    """A machine is cut off for long, and the bucket is in trouble while others take over."""
    at = rng.uniform(9.0, 14.0)
    cuts = [Fault(at, "cut", n, CALM_S - at) for n in ("n0", rng.choice(("n0", "n1")))]
    how = rng.choice(("failed", "slow", "lost", "failed"))
    return (*cuts[: rng.randint(1, 2)], Fault(at + rng.uniform(14.0, 22.0), "store", "n0", rng.uniform(4.0, 16.0), how))


def _early(rng: random.Random) -> tuple[Fault, ...]:
    """Machines are cut off or go down as soon as the first writes are there."""
    what = rng.choice(("cut", "reboot"))
    return tuple(Fault(rng.uniform(5.5, 10.0), what, n, rng.uniform(25.0, 40.0), "same") for n in ("n0", "n1"))


def _there_and_back(rng: random.Random) -> tuple[Fault, ...]:
    """One machine is cut off, then the others, so that tenants come back to where an old volume is."""
    at = rng.uniform(9.0, 13.0)
    back = at + rng.uniform(26.0, 29.0)
    return (Fault(at, "cut", "n0", back - at), *(Fault(back + 3.0, "cut", n, 28.0) for n in ("n1", "n2")))


def _sluggish(rng: random.Random) -> tuple[Fault, ...]:
    """An observer's reads take long, and then machines are cut off."""
    at = rng.uniform(9.0, 15.0)
    slow = [Fault(at, "sluggish", c, rng.uniform(6.0, 16.0), "9") for c in ("c0", "c1")]
    return (*slow, *(Fault(at + rng.uniform(0.0, 10.0), "cut", n, 28.0) for n in ("n0", "n1")))


def _slow_to_revoke(rng: random.Random) -> tuple[Fault, ...]:
    """Machines cannot renew for about as long as observers wait, and what those do takes long."""
    at = rng.uniform(8.0, 14.0)
    slow = [Fault(at + 12.0, "sluggish", c, 20.0, "4") for c in ("c0", "c1")]
    return (*slow, *(Fault(at, "cut", n, rng.uniform(16.0, 24.0)) for n in ("n0", "n1")))


def _left_behind(rng: random.Random) -> tuple[Fault, ...]:
    """A machine is cut off, and guard and agent die while it stands still."""
    at = rng.uniform(8.0, 14.0)
    return (Fault(at, "cut", "n0", 32.0), Fault(at + rng.uniform(13.0, 18.0), "kill_both", "n0", 3.0))


def _wakes_late(rng: random.Random) -> tuple[Fault, ...]:
    """A machine stops, its clock with it, and goes on while others, slowly, take over what it had."""
    at = rng.uniform(9.0, 16.0)
    paused = rng.choice(("n0", "n1"))
    others = [Fault(at + 12.0, "sluggish", n, 25.0) for n in ("n0", "n1", "n2") if n != paused]
    return (Fault(at, PAUSE, paused, rng.uniform(17.0, 27.0)), *others)


def _stalled(rng: random.Random) -> tuple[Fault, ...]:
    """A machine whose requests take long stops in the middle of them, its clock with it."""
    at, n = rng.uniform(12.0, 20.0), rng.choice(("n0", "n1"))
    return (Fault(at - 5.0, "sluggish", n, 40.0), Fault(at, PAUSE, n, rng.uniform(20.0, 28.0)))


def _leaving(rng: random.Random) -> tuple[Fault, ...]:
    """Tenants are asked to move, slowly, and their machine stops meanwhile, its clock with it."""
    at = rng.uniform(10.0, 18.0)
    moves = [Fault(at + 0.01 * i, "move", "n0") for i in range(4)]
    still = [Fault(at + rng.uniform(2.0, 7.0), PAUSE, n, rng.uniform(20.0, 28.0)) for n in ("n0", "n1")]
    return (*(Fault(at - 3.0, "sluggish", n, 40.0) for n in ("n0", "n1")), *moves, rng.choice(still))


def _halfway(rng: random.Random) -> tuple[Fault, ...]:
    """Agents die while they take over."""
    at = rng.uniform(9.0, 14.0)
    dying = [Fault(at + rng.uniform(18.0, 26.0), "kill_agent", n) for n in ("n1", "n2", "n1", "n2")]
    return (Fault(at, "cut", "n0", 40.0), *dying)


def _power_cuts(rng: random.Random) -> tuple[Fault, ...]:
    """Machines go down and are back at once, with less than they had."""
    return tuple(
        Fault(rng.uniform(9.0, 35.0), "reboot", n, 1.0, rng.choice(("powerloss", "olddisk")))
        for n in ("n0", "n1", "n0", "n1")
    )


def _flickers(rng: random.Random) -> tuple[Fault, ...]:
    """Each machine hears, late, that it renewed, and then nothing any more."""
    return tuple(Fault(rng.uniform(8.0, 16.0), "flicker", n, 25.0) for n in ("n0", "n1"))


def _late_start(rng: random.Random) -> tuple[Fault, ...]:
    """A container dies and is started by a slow engine while its machine is cut off."""
    at = rng.uniform(9.0, 20.0)
    found = []
    for n in ("n0", "n1"):
        crash = Fault(at + rng.uniform(4.0, 12.0), "crash", n)
        found += [Fault(at, "cut", n, 30.0), Fault(at, "slow_engine", n, 30.0), crash]
    return tuple(found[: rng.choice((3, 6))])


def _solo_cut(rng: random.Random) -> tuple[Fault, ...]:
    """The only machine is cut off just before another one joins."""
    at = rng.uniform(8.0, 17.0)
    return (Fault(at, "cut", "n0", CALM_S - at),)


def _purged(rng: random.Random) -> tuple[Fault, ...]:
    """A tenant is purged and made anew at once, while some hear of it late."""
    at, who = rng.uniform(15.0, 25.0), rng.choice(TENANTS)
    slow = Fault(at - 3.0, "sluggish", rng.choice(("c1", "n0", "n1")), 25.0, "9")
    return (slow, Fault(at, "purge", who, 1.0), Fault(at + rng.uniform(3.0, 9.0), "purge", who, 1.0))


def _purged_away(rng: random.Random) -> tuple[Fault, ...]:
    """A tenant is purged while the machine that has it leaves: it comes back and remembers."""
    at = rng.uniform(12.0, 25.0)
    leaves = [Fault(at, "leave", n) for n in ("n0", "n1")]
    return (rng.choice(leaves), *(Fault(at + rng.uniform(0.0, 1.5), "purge", t, 25.0) for t in TENANTS))


def _back(rng: random.Random) -> tuple[Fault, ...]:
    """Tenants go back to a moment, and machines go down after it."""
    at = rng.uniform(18.0, 24.0)
    asked = [Fault(at, "restore", t, rng.uniform(2.0, 5.0)) for t in TENANTS]
    return (*asked, *(Fault(at + rng.uniform(9.0, 16.0), "reboot", n, 2.0, "same") for n in ("n0", "n1")))


def _back_half_way(rng: random.Random) -> tuple[Fault, ...]:
    """Tenants go back to a moment, and the bucket is out of reach in the middle of it."""
    at = rng.uniform(18.0, 24.0)
    asked = [Fault(at, "restore", t, rng.uniform(2.0, 5.0)) for t in TENANTS]
    return (*asked, *(Fault(at + rng.uniform(0.5, 3.5), "cut", n, rng.uniform(1.0, 4.0)) for n in ("n0", "n1")))


def _crowded(rng: random.Random) -> tuple[Fault, ...]:
    """Every tenant is on one machine, and that is drained."""
    cuts = [Fault(0.5, "cut", n, 10.0) for n in ("n1", "n2")]
    return (*cuts, Fault(rng.uniform(22.0, 28.0), "drain", "n0", 15.0))


def _headless(rng: random.Random) -> tuple[Fault, ...]:
    """A controller dies for good, before anything is up or later, and a machine is cut off."""
    dies = Fault(rng.uniform(2.0, 15.0), "kill_controller", rng.choice(("c0", "c1")), 1000.0)
    return (dies, Fault(rng.uniform(9.0, 20.0), "reboot", "n0", 400.0, "same"))


CUTS = {"cut": 5, "store": 3}
REBOOTS = {"reboot": 4, "store": 2, "cut": 1}
AGENTS = {"kill_agent": 4, "kill_both": 2, "store": 4, "cut": 2}

_writers = tuple((where, "write_owner", broken.fresh_etag) for where in (take, settle, release, custody))

VARIANTS = (
    # time
    Variant("no margin", replaced((fleetfile, "_found", broken.no_margin)), plot=_flickers),
    Variant("the observer's window is short", replaced((silence, "look", broken.half_window)), CUTS),
    Variant("the deadline counts from the end", replaced((rules, "renewed", broken.from_the_end)), plot=_flickers),
    Variant("a late answer counts", replaced((rules, "renewed", broken.late_counts)), plot=_flickers),
    Variant(
        "a solo machine is revoked", replaced((observer, "after_read", broken.solo_too)), plot=_solo_cut, solo=True
    ),
    Variant("the observer counts from the begin", replaced((silence, "look", broken.from_the_begin)), plot=_sluggish),
    Variant("revoked under a fresh etag", replaced((Leases, "_revoke", broken.revoke_anew)), plot=_slow_to_revoke),
    # sessions
    Variant("not frozen at the deadline", replaced((Session, "live", broken.lives_in("frozen"))), CUTS),
    Variant("thawed before it is settled", replaced((Session, "live", broken.lives_in("settling"))), AGENTS | CUTS),
    Variant(
        "a session begins before all stands still",
        replaced((Guard, "_begin", broken.begin_first), (Session, "live", broken.lives_in("starting", "revoked"))),
        AGENTS | CUTS,
    ),
    Variant("a late start escapes the frozen parent", nothing, plot=_late_start, rules=Rules(late_start_escapes=True)),
    Variant("a clean stop deletes the lease", replaced((Registrar, "farewell", broken.delete_lease)), {"leave": 1}),
    Variant("another session is a later one", broken.earlier_leases, AGENTS | {"reboot": 2}),
    Variant("what another holds is adopted", replaced((adopt, "_ours", lambda *_: True)), plot=_left_behind),
    # claims
    Variant(
        "an epoch is used again",
        replaced((claim, "decide", broken.same_epoch), (keys, "lineage", broken.any_lineage)),
        CUTS,
    ),
    Variant("the cut is made before the claim", broken.prefetching, plot=_wakes_late, shows=ALWAYS),
    Variant("own records are not taken up", replaced((claim, "_mine", lambda *_: False)), REBOOTS | AGENTS),
    Variant("unknown is empty", replaced((take, "_sources", broken.empty_when_unknown)), plot=_failover),
    Variant("an unfinished epoch is ignored", replaced((take, "salvage", lambda *_: (0, {}))), plot=_early),
    Variant("a doubtful write is looked for once", replaced((cas, "write", broken.once)), {"store": 4, "cut": 2}),
    Variant("a write names the etag it just read", replaced(*_writers), plot=_leaving, shows=ALWAYS),
    # volumes
    Variant(
        "the position is not compared",
        replaced((claim, "decide", broken.any_boot), (positions, "not_behind", lambda _: True)),
        plot=_power_cuts,
    ),
    Variant("a volume goes on after a power cut", replaced((claim, "decide", broken.any_boot)), plot=_power_cuts),
    Variant(
        "an unconfirmed volume goes on",
        replaced((restore, "_mark", broken.mark_at_once), (claim, "comparable", broken.any_epoch)),
        plot=_halfway,
    ),
    Variant("every old volume is deleted", replaced((take, "disposable", lambda *_, **__: True)), plot=_there_and_back),
    # confirming
    Variant(
        "no owner is read after the upload",
        replaced((durable, "_still_ours", broken.always_ours)),
        plot=_stalled,
        shows=ALWAYS,
    ),
    Variant(
        "the owner is read before the upload",
        replaced((durable, "durable", broken.asked_before)),
        plot=_stalled,
        shows=ALWAYS,
    ),
    Variant("named before it is confirmed", replaced((settle, "_confirmed", broken.not_awaited)), plot=_failover),
    Variant("one file of several is confirmed", replaced((settle, "_confirmed", broken.first_file)), plot=_failover),
    Variant(
        "released before the last byte is there",
        replaced((release, "_confirm_last", broken.not_confirmed), (release, "_in_bucket", broken.in_bucket)),
        {"move": 4, "store": 3},
    ),
    # what operators ask for
    Variant("a purge asks nobody again", replaced((purge, "delete_under", broken.whatever_is_there)), plot=_purged),
    Variant("a purge deletes what others have", replaced((purge, "delete_under", broken.everybodys)), plot=_purged),
    Variant(
        "a purged life goes on",
        replaced(
            (purge, "purge", lambda *_: (0, True)),
            (take, "_record", broken.life_goes_on),
            (take, "_sources", broken.never_purged),
        ),
        plot=_purged,
    ),
    Variant("what a purge has overtaken comes up", replaced((claim, "overtaken", lambda *_: None)), plot=_purged_away),
    Variant("a restore takes the newest", replaced((take, "_asked_for", broken.the_newest)), plot=_back),
    Variant(
        "a restore is carried out again",
        replaced((claim, "wanted", lambda _, restore: restore is not None), (take, "claim_of", broken.claim_again)),
        plot=_back,
    ),
    Variant(
        "a restore half-way counts as done", replaced((release, "_record", broken.noted_anyhow)), plot=_back_half_way
    ),
    Variant("a drained machine gives all at once", replaced((Turns, "free", lambda *_: True)), plot=_crowded),
    Variant("a dead leader leads", replaced((leading, "judge", broken.for_ever)), plot=_headless, solo=False, led=True),
    # collecting
    Variant("what is retained is collected", replaced((garbage, "judge", broken.all_older)), CUTS),
    Variant(
        "who has not confirmed collects",
        replaced((collect, "_held", lambda *_: True), (garbage, "judge", broken.all_older)),
        plot=_failover,
    ),
)


def script(variant: Variant, seed: int) -> Script:
    """The run of a seed in which this variant may show."""
    drawn = draw(seed, dict(variant.kinds))
    if variant.plot is not None:
        if variant.led:  # two, or nobody is left to take over
            rates = (*drawn.rates[: drawn.machines + 1], 1.0)
            drawn = replace(drawn, led=True, controllers=2, rates=rates)
        known = [f"n{i}" for i in range(drawn.machines)] + [f"c{i}" for i in range(drawn.controllers)] + [*TENANTS]
        plotted = variant.plot(random.Random(f"plot {seed}"))
        found = tuple(sorted((f for f in plotted if f.who in known), key=lambda f: f.at))
        drawn = replace(drawn, faults=found)
    return drawn if variant.solo is None else replace(drawn, solo=variant.solo)


def run(variant: Variant, what: Script, *, verbose: bool = False) -> Result:
    """Carry it out with the rule broken."""
    return world.run(what, rules=variant.rules, broken=variant.broken(), verbose=verbose)


def caught(variant: Variant, result: Result) -> bool:
    """Whether it showed. An error of the variant itself shows nothing."""
    own = any(
        name in v.text for v in result.violations if v.kind == "defect" for name in ("TypeError", "AttributeError")
    )
    return not own and any(v.kind in variant.shows for v in result.violations)
