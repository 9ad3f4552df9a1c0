"""Every rule of the protocol broken, one at a time: what the model checker must find, or it checks nothing.

Each variant keeps the bounds and the faults as small as what it breaks allows, so that it is found in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Variant:
    """One rule broken. `sets` are constants of `module`; one of `breaks` (invariants, or one liveness property) must
    be violated. `why` is what goes wrong."""

    name: str
    module: str
    why: str
    breaks: tuple[str, ...]
    sets: dict[str, str] = field(default_factory=dict)
    liveness: bool = False


TWO_AT_WORK = ("OneWriter",)
# An acknowledged write is gone, or would be by the next restore. Holds even while machines are paused.
ACK_GONE = ("RunsCurrent", "AckHeld", "NotLost")
TWO_FILES = {"Files": '{"x", "y"}'}


def _owner(name: str, why: str, breaks: tuple[str, ...], kinds: str, faults: int = 1, **sets: str) -> Variant:
    quoted = ", ".join(f'"{kind}"' for kind in kinds.split())
    bounds = {"KINDS": f"{{{quoted}}}", "FAULTS": str(faults), "MAXW": "1", "SLEEPS": "0", "MAXEP": "2", "MAXSES": "2"}
    values = {k: v if v in ("TRUE", "FALSE") or v.isdigit() or v[0] == "{" else f'"{v}"' for k, v in sets.items()}
    return Variant(name, "Ownership", why, breaks, bounds | values)


def _two(variant: Variant) -> Variant:
    return replace(variant, sets=variant.sets | TWO_FILES)


def _forever(variant: Variant) -> Variant:
    return replace(variant, liveness=True)


OWNERSHIP = (
    # the lease and the session
    _owner("no-margin", "a session is called over while its tenants run", TWO_AT_WORK, "partition", MARGIN="FALSE"),
    _owner(
        "silence-is-enough",
        "a frozen machine renews and thaws: nobody had revoked its session",
        TWO_AT_WORK,
        "partition",
        REVOKE="FALSE",
    ),
    _owner(
        "lease-deleted",
        "the next session has a number that was over before",
        TWO_AT_WORK,
        "stop",
        LEASEDEL="TRUE",
        SLEEPS="1",
    ),
    _owner(
        "another-session",
        "a lease read before the owner record names an earlier session",
        TWO_AT_WORK,
        "agent machine",
        2,
        SESSIONS="other",
    ),
    _owner("thawed-late", "an answer from before the revocation thaws", TWO_AT_WORK, "partition", THAW="any"),
    _owner("resumed-late", "a guard goes on in a session that is over", TWO_AT_WORK, "guard", RESUME="any"),
    _owner(
        "session-first",
        "the old session is over by the new one, and still runs",
        TWO_AT_WORK,
        "guard",
        RESTART="running",
    ),
    _owner(
        "thawed-before-settled",
        "what another node has claimed meanwhile runs again",
        TWO_AT_WORK,
        "guard",
        SETTLE="at-once",
    ),
    _owner("parent-thawed", "the engine carries a start out after the kill", TWO_AT_WORK, "partition", FROZEN="FALSE"),
    # the owner record
    _owner(
        "ambiguous-claim",
        "a claim that was believed lost is applied",
        TWO_AT_WORK,
        "timeout",
        AMBIG="reread",
        SLEEPS="1",
        MAXEP="3",
    ),
    _owner(
        "fresh-etag",
        "a holder overwrites the record of its successor",
        ACK_GONE,
        "pause",
        ETAG="fresh",
        SLEEPS="1",
        MAXW="2",
        MAXSES="1",
    ),
    _owner("claim-of-an-old-session", "what is over already starts", TWO_AT_WORK, "guard", CLAIMS="any"),
    _owner(
        "closed-over-its-volume",
        "a machine that lost power goes on in its epoch",
        (*ACK_GONE, "OneHistory"),
        "machine powerloss",
        CLOSE="any",
        SLEEPS="1",
        MAXW="2",
        Nodes="{a}",
        MAXEP="1",
    ),
    # epochs, and the volume that is here
    _owner(
        "epoch-reused",
        "a late upload of the predecessor is in the successor's prefix",
        ACK_GONE,
        "machine",
        EPOCHS="reused",
        MAXW="3",
        Nodes="{a}",
        MAXEP="1",
    ),
    _owner(
        "marker-at-creation",
        "an empty volume goes on in its epoch",
        ACK_GONE,
        "partition giveup",
        2,
        MARKER="create",
        DATACHECK="FALSE",
    ),
    _owner(
        "marker-at-restore",
        "it runs in an epoch that cannot be restored",
        ("RanHasData",),
        "partition giveup",
        2,
        MARKER="complete",
        DATACHECK="FALSE",
    ),
    _two(
        _owner(
            "marker-after-one-file",
            "it runs in an epoch that cannot be restored",
            ("RanHasData",),
            "partition giveup",
            2,
            MARKER="first",
            DATACHECK="FALSE",
        )
    ),
    _owner(
        "no-position",
        "an older disk goes on",
        ACK_GONE,
        "machine olddisk",
        2,
        POSCHECK="none",
        SLEEPS="1",
        Nodes="{a}",
        MAXEP="1",
    ),
    _two(
        _owner(
            "position-of-one-file",
            "a disk with one older file goes on",
            ACK_GONE,
            "machine olddisk",
            2,
            POSCHECK="one",
            SLEEPS="1",
            MAXW="2",
            Nodes="{a}",
            MAXEP="1",
        )
    ),
    _owner(
        "unclean-continues",
        "bytes that were not synced are missing",
        ACK_GONE,
        "machine powerloss",
        2,
        REBOOT="continue",
        Nodes="{a}",
    ),
    _owner(
        "unclean-continues-late-put",
        "an upload from before the crash lands on top",
        ACK_GONE,
        "machine olddisk",
        2,
        REBOOT="continue",
        MAXW="3",
        Nodes="{a}",
        MAXEP="1",
    ),
    _owner(
        "unclean-continues-async",
        "two histories in one epoch, though nothing was acknowledged",
        ("OneHistory",),
        "machine powerloss",
        REBOOT="continue",
        RPO="async",
        Nodes="{a}",
    ),
    _owner(
        "unclean-carried-at-rpo-0",
        "a carried volume may lack what was acknowledged",
        ACK_GONE,
        "machine powerloss",
        REBOOT="at-any-rpo",
        INTACT="FALSE",
        Nodes="{a}",
    ),
    _owner(
        "unclean-carried-torn",
        "a file is behind what was copied out of it",
        ("CarriedWhole",),
        "machine powerloss",
        INTACT="FALSE",
        RPO="async",
        Nodes="{a}",
    ),
    # restore
    _two(
        _owner(
            "incomplete-epoch-restored",
            "an epoch that died half-way has one of the files",
            ACK_GONE,
            "machine",
            2,
            SOURCE="newest",
            MAXW="2",
            MAXEP="3",
            Nodes="{a}",
            MAXSES="3",
        )
    ),
    _owner(
        "listed-before-the-claim",
        "what is acknowledged meanwhile is not in the cut",
        ACK_GONE,
        "pause",
        LISTING="before",
        MAXW="2",
    ),
    _owner("restored-past-the-cut", "a zombie's upload is merged", ("LineageTrue",), "pause", CUT="newest", MAXW="2"),
    _owner("born-in-epoch-1-only", "a tenant whose first claim died is lost", ("NotLost",), "partition", BORN="first"),
    _owner(
        "failed-list-is-empty",
        "born empty over its data",
        ACK_GONE,
        "machine list",
        2,
        BORN="unread",
        MAXEP="2",
        Nodes="{a}",
    ),
    _two(
        _owner(
            "data-epoch-after-one-file",
            "an epoch without one of the files is restored",
            ACK_GONE,
            "machine",
            2,
            DATAEPOCH="first",
            MAXW="2",
            MAXEP="3",
            Nodes="{a}",
            MAXSES="3",
        )
    ),
    # acknowledging, releasing, deleting
    _two(
        _owner(
            "durable-of-one-file",
            "the other file's write was not in the bucket",
            ACK_GONE,
            "",
            0,
            DURABLE="one",
            MAXW="3",
            Nodes="{a}",
        )
    ),
    _owner("no-reread", "acknowledged after the successor's cut", ACK_GONE, "pause", REREAD="never"),
    _owner(
        "reread-before-upload", "acknowledged after the successor's cut", ACK_GONE, "pause", REREAD="before", MAXW="2"
    ),
    _two(
        _owner(
            "released-with-one-file",
            "the other file's last byte was only here",
            ("Lossless",),
            "",
            0,
            RELEASE="one",
            SLEEPS="1",
            MAXW="2",
            Nodes="{a}",
        )
    ),
    _owner(
        "collected-above-data", "the only whole epoch is deleted", ACK_GONE, "gc machine", 2, GC="older", Nodes="{a}"
    ),
    # what comes about in the end
    _forever(
        _owner(
            "ambiguous-and-not-taken-up",
            "nobody takes up a claim that was applied after all",
            ("ComesBack",),
            "timeout",
            AMBIG="reread",
            OWNREC="FALSE",
            MAXEP="3",
            MAXSES="3",
        )
    ),
    _forever(
        _owner(
            "nothing-says-so",
            "a machine that went on after its pause runs beside its successor for ever",
            ("OneInTheEnd",),
            "pause",
            REVOKE="FALSE",
            WATCH="FALSE",
        )
    ),
    # assumptions: without them the invariant does not hold
    _owner("both-die", "nobody is left to freeze", TWO_AT_WORK, "bothdie"),
    _owner("clock-pauses", "a machine that knows nothing of its pause runs beside its successor", TWO_AT_WORK, "pause"),
    _owner("clock-pauses-stale", "and answers stale reads", ("NoStale",), "pause"),
)


def _lease(name: str, why: str, **sets: str) -> Variant:
    values = {k: v if v.isdigit() else f'"{v}"' for k, v in sets.items()}
    return Variant(name, "Lease", why, ("OverIsOver",), {"TTL": "2", "LAG": "0", "MAXSEQ": "2", "DEATHS": "0"} | values)


LEASE = (
    _lease("lease-no-margin", "the observer's window is not longer than the holder's", M="0", MAXSEQ="2"),
    _lease("slow-fence", "freezing takes longer than the margins allow for", LAG="3", MAXSEQ="2"),
    _lease("fast-clock", "the observer's clock drifts by more than the margins", DRIFT="3", MAXSEQ="2"),
    _lease("deadline-from-last-attempt", "the first attempt was applied long before", START="last"),
    _lease("deadline-from-answer", "the renewal was applied long before", START="answer"),
    _lease("late-answer-thaws", "an answer that came late thaws what was revoked since", LATE="any"),
    _lease("resumed-past-the-deadline", "the guard is back too late, and goes on", RESUME="any", LAG="1", DEATHS="1"),
    _lease("heard-and-thawed", "the session of an agent that hung is over by then", HEARD="at-once", DEATHS="1"),
    _lease(
        "renewal-not-written-down",
        "a guard that is back does not know that its lease says shared",
        SAVED="after",
        DEATHS="1",
        FIRST="solo",
        SWITCHES="1",
        MAXSEQ="2",
    ),
    _lease(
        "shared-once-answered",
        "the lease says shared, its guard runs on through an outage",
        SWITCH="answered",
        FIRST="solo",
        SWITCHES="1",
        MAXSEQ="2",
    ),
    _lease("solo-judged", "who is solo does not freeze, and is called silent", SOLO="nobody", FIRST="solo", MAXSEQ="1"),
    _lease(
        "solo-judged-by-the-fleet",
        "the fleet is shared, this lease is not yet",
        SOLO="fleet",
        FIRST="solo",
        SWITCHES="1",
        MAXSEQ="1",
    ),
    _lease("revoked-blindly", "a renewal that came first is overwritten", REVOKE="blind"),
    _lease("revoked-by-silence-alone", "a frozen machine renews, and thaws", REVOKE="enough"),
    _lease("window-from-the-begin", "the read began before the renewal did", SIGHT="begin"),
    # assumptions: without them the invariant does not hold
    _lease("clock-stops", "a machine that knows nothing of its pause", PAUSE="stopped", MAXSEQ="1"),
    _lease(
        "pause-counted",
        "its tenants wake with the guard, which freezes them a moment later",
        PAUSE="ticking",
        MAXSEQ="1",
    ),
)

VARIANTS = (*LEASE, *OWNERSHIP)
