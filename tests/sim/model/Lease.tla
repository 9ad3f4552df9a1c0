------------------------------- MODULE Lease -------------------------------
(* Time: one session of one machine, its lease, and one observer.           *)
(*                                                                          *)
(* Lemma:  the observer's `gone` is in the lease (over)                     *)
(*           =>  nothing of that session runs, now or later.                *)
(* Ownership.tla assumes the lemma (ObserveExpired) and nothing else about  *)
(* time.                                                                    *)
(*                                                                          *)
(* Abstracted away: what runs (`st` is all of it), what the next session    *)
(* does (this one is dead then), other observers (the first to revoke ends  *)
(* the session for all), and what a lease says beside (seq, mode, gone).    *)
(*                                                                          *)
(* One Tick is one unit of true time. Ages and countdowns replace clocks,   *)
(* so no time is ever compared between two machines. Relative clock drift   *)
(* is DRIFT extra ticks of the observer per observation window. Freezing    *)
(* takes up to LAG ticks after the deadline, also where the guard has died: *)
(* whoever notices starts another (assumption: somebody is there by then).  *)
EXTENDS Integers

CONSTANTS
  TTL, M,        \* lease ttl and margin, ticks
  LAG,           \* latency of the fence
  DRIFT,         \* extra ticks that the observer's clock may show per window
  MAXSEQ,        \* bound on renewals
  DEATHS,        \* how often the guard may die, or its agent hang
  SWITCHES,      \* how often fleet.json may change between solo and shared
  FIRST,         \* the mode to begin with, "solo" | "shared"
  PAUSE          \* "no" | "ticking" (clocks count the pause) | "stopped" (the hypervisor stops them)

(* Rules: the first value is what is built, the others are broken. *)
CONSTANTS
  START,         \* the deadline counts from the "first" attempt of a renewal | its "last" attempt | its "answer"
  LATE,          \* past the deadline thaws: a renewal "begun-after" it, in its own time | "any" that is answered
  RESUME,        \* a guard that is back goes on before its "deadline" only | at "any" time
  HEARD,         \* an agent that speaks again thaws by the next "renewal" | "at-once"
  SAVED,         \* a renewal is written down "before" it is sent | "after" its answer
  SWITCH,        \* shared binds from when it is "sent" | "answered"
  REVOKE,        \* silence is settled by a CAS on the "etag" of the deciding read | a "blind" write | it is "enough"
  SIGHT,         \* the observer's window starts at the "end" | "begin" of the read that showed the seq
  SOLO           \* who is solo is not judged, by what the "lease" says | by what "fleet" says | "nobody" asks

CAP  == TTL + M + 2         \* ages saturate here
NOREN == [on |-> FALSE]
NORD  == [on |-> FALSE]

VARIABLES
  rec,      \* the lease in the bucket [seq, mode, gone]
  wish,     \* what fleet.json says: "solo" | "shared"
  st,       \* what the session's tenants do: "run" | "frozen" | "hung" (frozen: no agent answers) | "dead"
  gd,       \* the guard: "up" | "down"
  md,       \* the guard's mode: the deadline binds when "shared"
  dl,       \* the guard's clock: ticks to the deadline, negative when past it (0 while solo)
  ren,      \* the renewal under way: [on, age, last, tries, landed, mode, was: mode before, after: begun past the
            \*   deadline, known: the guard has it written down]
  paused,   \* the whole machine is
  osq, ow,  \* observer: last seq seen, ticks since (its clock)
  odr,      \* drift used in this window
  rd,       \* its read in flight: [on, val, mode, age, due: started after the window]
  rev,      \* its CAS of `gone` in flight: the seq that it is conditional on, 0: none
  over,     \* its verdict, which everybody may act upon
  deaths, switches
vars == <<rec, wish, st, gd, md, dl, ren, paused, osq, ow, odr, rd, rev, over, deaths, switches>>
guard == <<gd, md, dl>>
obsv  == <<osq, ow, odr, rd, rev, over>>
limits == <<deaths, switches>>

Up(x) == IF x < CAP THEN x + 1 ELSE CAP

Init ==
  /\ rec = [seq |-> 1, mode |-> FIRST, gone |-> FALSE] /\ wish = FIRST
  /\ st = "run" /\ gd = "up" /\ md = FIRST /\ dl = (IF FIRST = "solo" THEN 0 ELSE TTL - M) /\ ren = NOREN
  /\ paused = FALSE /\ osq = 0 /\ ow = 0 /\ odr = 0 /\ rd = NORD /\ rev = 0 /\ over = FALSE
  /\ deaths = DEATHS /\ switches = SWITCHES

-----------------------------------------------------------------------------
(* The guard *)
Works == gd = "up" /\ ~paused /\ st # "dead"
Late  == md = "shared" /\ dl <= 0

RenewStart ==        \* written down, and then sent. Once `shared` may land, others may count: bound from here on.
  /\ Works /\ st # "hung" /\ ~ren.on /\ rec.seq < MAXSEQ
  /\ ren' = [on |-> TRUE, age |-> 0, last |-> 0, tries |-> 1, landed |-> FALSE, mode |-> wish, was |-> md,
             after |-> Late, known |-> TRUE]
  /\ IF SWITCH = "sent" /\ wish = "shared" /\ md = "solo" THEN md' = "shared" /\ dl' = TTL - M
                                                          ELSE UNCHANGED <<md, dl>>
  /\ UNCHANGED <<rec, wish, st, gd, paused, obsv, limits>>

RenewRetry ==        \* no answer yet: the same write again, while the first may still land
  /\ Works /\ ren.on /\ ren.known /\ ren.tries < 2
  /\ ren' = [ren EXCEPT !.tries = 2, !.last = 0]
  /\ UNCHANGED <<rec, wish, st, guard, paused, obsv, limits>>

RenewLand ==         \* the store applies it, at any time, even after the guard has died
  /\ ren.on /\ ~ren.landed /\ ~rec.gone
  /\ rec' = [rec EXCEPT !.seq = @ + 1, !.mode = ren.mode] /\ ren' = [ren EXCEPT !.landed = TRUE]
  /\ UNCHANGED <<wish, st, guard, paused, obsv, limits>>

Fresh == TTL - M - (CASE START = "first" -> ren.age [] START = "last" -> ren.last [] OTHER -> 0)
RenewAnswer ==       \* 200; or 412, and the record has its own nonce
  /\ Works /\ ren.on /\ ren.landed /\ ren.known /\ ren' = NOREN
  /\ IF Late /\ ren.mode = "shared" /\ ~(LATE = "any" \/ (ren.after /\ Fresh > 0))
     THEN UNCHANGED <<st, md, dl>>                     \* too late: it stays frozen until the next one
     ELSE st' = (IF st = "hung" THEN st ELSE "run") /\ md' = ren.mode /\ dl' = (IF ren.mode = "solo" THEN 0 ELSE Fresh)
  /\ UNCHANGED <<rec, wish, gd, paused, obsv, limits>>

RenewLost ==         \* 412, and the record has somebody else's nonce: kill
  /\ Works /\ ren.on /\ ~ren.landed /\ rec.gone
  /\ st' = "dead" /\ ren' = NOREN /\ UNCHANGED <<rec, wish, guard, paused, obsv, limits>>

Freeze  == /\ Works /\ st = "run" /\ Late /\ st' = "frozen"
           /\ UNCHANGED <<rec, wish, guard, ren, paused, obsv, limits>>
GiveUp  == /\ Works /\ st = "frozen" /\ st' = "dead"   \* frozen for too long
           /\ UNCHANGED <<rec, wish, guard, ren, paused, obsv, limits>>

Hang    ==           \* no agent speaks: frozen and not renewed, so that others may take over
  /\ Works /\ st = "run" /\ md = "shared" /\ deaths > 0 /\ deaths' = deaths - 1 /\ st' = "hung"
  /\ UNCHANGED <<rec, wish, guard, ren, paused, obsv, switches>>
Heard   ==
  /\ Works /\ st = "hung" /\ st' = (IF HEARD = "renewal" THEN "frozen" ELSE "run")
  /\ UNCHANGED <<rec, wish, guard, ren, paused, obsv, limits>>

Die     == /\ Works /\ deaths > 0 /\ deaths' = deaths - 1 /\ gd' = "down"
           /\ ren' = IF SAVED = "after" /\ ren.on THEN [ren EXCEPT !.known = FALSE] ELSE ren
           /\ UNCHANGED <<rec, wish, st, md, dl, paused, obsv, switches>>
Back    ==           \* in the same session if that is still live; else all is frozen, for a new one
  /\ gd = "down" /\ ~paused /\ gd' = "up"
  /\ LET mode == IF ren.on /\ ~ren.known THEN ren.was ELSE md IN
     IF st = "run" /\ (mode = "solo" \/ dl > 0 \/ RESUME = "any")
     THEN /\ md' = mode /\ dl' = (IF RESUME = "any" /\ mode = "shared" /\ dl <= 0 THEN TTL - M ELSE dl) /\ UNCHANGED st
     ELSE st' = "dead" /\ UNCHANGED <<md, dl>>
  /\ UNCHANGED <<rec, wish, ren, paused, obsv, limits>>

Stops   == /\ PAUSE # "no" /\ st = "run" /\ ~paused /\ paused' = TRUE
           /\ UNCHANGED <<rec, wish, st, guard, ren, obsv, limits>>
GoesOn  == /\ paused /\ paused' = FALSE /\ UNCHANGED <<rec, wish, st, guard, ren, obsv, limits>>

Switch  == /\ switches > 0 /\ switches' = switches - 1       \* a join, or an operator
           /\ wish' = (IF wish = "solo" THEN "shared" ELSE "solo")
           /\ UNCHANGED <<rec, st, guard, ren, paused, obsv, deaths>>

-----------------------------------------------------------------------------
(* The observer *)
ReadStart ==
  /\ ~rd.on /\ ~over /\ rev = 0
  /\ rd' = [on |-> TRUE, val |-> 0, mode |-> "", age |-> 0, due |-> ow >= TTL + M]
  /\ UNCHANGED <<rec, wish, st, guard, ren, paused, osq, ow, odr, rev, over, limits>>

ReadServe ==
  /\ rd.on /\ rd.val = 0 /\ rd' = [rd EXCEPT !.val = rec.seq, !.mode = rec.mode]
  /\ UNCHANGED <<rec, wish, st, guard, ren, paused, osq, ow, odr, rev, over, limits>>

Judged == CASE SOLO = "lease" -> rd.mode = "shared" [] SOLO = "fleet" -> wish = "shared" [] OTHER -> TRUE
ReadEnd ==
  /\ rd.on /\ rd.val # 0 /\ rd' = NORD
  /\ IF rd.val # osq
     THEN /\ osq' = rd.val /\ ow' = (IF SIGHT = "end" THEN 0 ELSE rd.age) /\ odr' = 0
          /\ UNCHANGED <<rev, over>>
     ELSE /\ rev' = (IF rd.due /\ Judged /\ REVOKE # "enough" THEN rd.val ELSE 0)
          /\ over' = (rd.due /\ Judged /\ REVOKE = "enough")
          /\ UNCHANGED <<osq, ow, odr>>
  /\ UNCHANGED <<rec, wish, st, guard, ren, paused, limits>>

RevokeLand ==        \* applied, late perhaps, if the lease is still the one that was read
  /\ rev # 0 /\ rev' = 0
  /\ IF rec.seq = rev \/ REVOKE = "blind" THEN rec' = [rec EXCEPT !.gone = TRUE] /\ over' = TRUE
                                          ELSE UNCHANGED <<rec, over>>
  /\ UNCHANGED <<wish, st, guard, ren, paused, osq, ow, odr, rd, limits>>

Drift == /\ odr < DRIFT /\ osq # 0 /\ ow < CAP
         /\ odr' = odr + 1 /\ ow' = Up(ow)
         /\ UNCHANGED <<rec, wish, st, guard, ren, paused, osq, rd, rev, over, limits>>

-----------------------------------------------------------------------------
(* Time may not pass a due freeze. *)
Stopped == paused /\ PAUSE = "stopped"
Tick ==
  /\ ~(st = "run" /\ ~paused /\ md = "shared" /\ dl <= -LAG)
  /\ dl' = IF md = "solo" \/ Stopped \/ dl <= -CAP THEN dl ELSE dl - 1
  /\ ren' = IF ren.on /\ ~Stopped THEN [ren EXCEPT !.age = Up(@), !.last = Up(@)] ELSE ren
  /\ ow' = IF osq # 0 THEN Up(ow) ELSE 0
  /\ rd' = IF rd.on THEN [rd EXCEPT !.age = Up(@)] ELSE rd
  /\ UNCHANGED <<rec, wish, st, gd, md, paused, osq, odr, rev, over, limits>>

Guarding == RenewStart \/ RenewRetry \/ RenewLand \/ RenewAnswer \/ RenewLost \/ Freeze \/ GiveUp \/ Hang \/ Heard \/ Die \/ Back
Watching == ReadStart \/ ReadServe \/ ReadEnd \/ RevokeLand \/ Drift
Next     == Guarding \/ Watching \/ Stops \/ GoesOn \/ Switch \/ Tick
Spec     == Init /\ [][Next]_vars
FairSpec == Spec /\ WF_vars(Tick) /\ WF_vars(ReadStart) /\ WF_vars(ReadServe) /\ WF_vars(ReadEnd)
            /\ WF_vars(RevokeLand) /\ WF_vars(RenewLand) /\ WF_vars(Freeze) /\ WF_vars(Back)

-----------------------------------------------------------------------------
OverIsOver == over => ~(st = "run" /\ ~paused)                           \* the lemma
SoloRuns   == md = "solo" /\ deaths = DEATHS => st # "frozen"            \* an outage does not pause who is solo
DeadIsSeen == (st = "dead" /\ rec.mode = "shared") ~> (over \/ rec.mode = "solo")      \* a dead session is found dead
=============================================================================
