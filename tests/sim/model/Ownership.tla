----------------------------- MODULE Ownership -----------------------------
(* One tenant of several files, a few nodes, one bucket: who may run it,    *)
(* acknowledge for it, restore it and delete of it.                         *)
(*                                                                          *)
(* Abstracted away:                                                         *)
(* - Time. Lease.tla proves what is needed of it: a lease that an observer  *)
(*   found silent, or that is past its deadline, has nothing running        *)
(*   (ObserveExpired). A guard that dies and resumes before its deadline,   *)
(*   and `solo`, change nothing that is in here: both are in Lease.tla.     *)
(* - A write is a number. A file is the sequence of its writes, on a volume *)
(*   and in an epoch's prefix alike; the index is Litestream's TXID, so two *)
(*   writers on one prefix overwrite each other's tail (Overlay).           *)
(* - Compaction, restores to a moment, purges, accepted losses, and what is *)
(*   done with a volume that was set aside.                                 *)
(* - What a claim had not brought to run when a session ends is claimed     *)
(*   anew, at the next epoch (as built it may also go on, like Adopt).      *)
(*                                                                          *)
(* A conditional PUT that was sent may be applied any time later, as long   *)
(* as its If-Match still holds: `cas` while its sender waits for it, `stray`*)
(* once the sender has given up or died. An upload likewise: `up`, `late`.  *)
(*                                                                          *)
(* The constants of the second group are the protocol's rules, one each.    *)
(* The first value is what is built, every other one a broken variant: the  *)
(* checker must find what it breaks, or the checker is broken itself.       *)
EXTENDS Naturals, Sequences, FiniteSets, TLC

CONSTANTS
  Nodes, Files, MAXEP, MAXSES, MAXW,   \* bounds
  FAULTS, SLEEPS,                      \* budgets: faults, and releases
  KINDS,                               \* faults allowed, a set of strings, see below
  RPO                                  \* "zero": writes are acknowledged once they are in the bucket | "async": at once

CONSTANTS
  (* the lease and the session *)
  MARGIN,     \* TRUE | FALSE: a session may be called over before its node has frozen
  REVOKE,     \* TRUE | FALSE: silence is settled by a CAS of `gone` into the silent lease
  LEASEDEL,   \* FALSE | TRUE: a clean stop deletes the lease
  SESSIONS,   \* "later" | "other": over when the lease names a later | any other session
  THAW,       \* "unrevoked" | "any": a renewal thaws if nobody revoked the lease | whenever it was answered
  RESUME,     \* "deadline" | "any": a guard goes on in its session before its deadline only | whenever it is back
  RESTART,    \* "frozen" | "running": a new session is written once all stands still | while it still runs
  SETTLE,     \* "adopted" | "at-once": thawed once every tenant is adopted or killed | with the new session
  FROZEN,     \* TRUE | FALSE: the cgroup parent stays frozen after a kill
  (* the owner record *)
  AMBIG,      \* "definite" | "reread": a CAS without answer is repeated | believed lost when it is not seen
  ETAG,       \* "own" | "fresh": a holder's CAS names the etag of its own last write | one it just read
  OWNREC,     \* TRUE | FALSE: an agent takes up a record that names it though it never saw the 200
  WATCH,      \* TRUE | FALSE: the agent re-reads the owner records of what it runs
  CLAIMS,     \* "session" | "any": a claim that was written in an earlier session is given up | gone on with
  CLOSE,      \* "not-mine" | "any": a record is closed without its volume on other nodes only | here, too
  (* epochs, and the volume that is here *)
  EPOCHS,     \* "fresh" | "reused": a takeover restores into the same prefix
  MARKER,     \* "confirmed" | "first" | "complete" | "create": a volume's marker names the epoch once every file's
              \*   first snapshot is in the bucket | the first file's | once it is restored | when it is made
  DATACHECK,  \* TRUE | FALSE: a volume goes on only in the epoch that is the tenant's data epoch
  POSCHECK,   \* "all" | "one" | "none": whose position is compared with the bucket's
  REBOOT,     \* "carried" | "at-any-rpo" | "continue": a volume whose machine went down goes on from a release at exactly
              \*   that position, or at rpo > 0, if not behind, under a new epoch | at rpo 0, too | in its epoch
  INTACT,     \* TRUE | FALSE: it is carried only if its files hold all that was copied out of them
  (* restore *)
  SOURCE,     \* "data-epoch" | "newest": what is restored: the data epoch | the newest one that holds any file
  LISTING,    \* "claimed" | "before": the predecessor is listed (the cut) after the claim | before it
  CUT,        \* "exact" | "newest": each file is restored to its cut | to what is there by then
  BORN,       \* "nothing" | "first" | "unread": born empty when no epoch holds anything | in epoch 1 | or after a failed LIST
  DATAEPOCH,  \* "all" | "first": data_epoch is set once all files are confirmed | the first one
  (* acknowledging, releasing, deleting *)
  DURABLE,    \* "all" | "one": /durable waits for every file | for one
  REREAD,     \* "after" the upload is confirmed | "before" | "never": the owner check of an acknowledgement
  RELEASE,    \* "all" | "one": a release waits for every file's last byte | for one file's
  GC          \* "below-data" | "older": which epochs may go

(* KINDS: "partition" the lease runs out: the guard freezes everything          *)
(*        "agent"     the agent dies; guard and containers live on             *)
(*        "guard"     the guard dies, and another comes after the deadline only *)
(*        "machine"   power off; with "powerloss" it loses unsynced bytes, too  *)
(*        "olddisk"   the machine comes back with an earlier disk               *)
(*        "pause"     the whole machine stops for long and goes on, its clock   *)
(*                    with it: nothing in it notices                            *)
(*        "timeout"   the sender of a CAS gives up on the answer                *)
(*        "list"      a LIST fails                                              *)
(*        "stop"      an idle node is stopped cleanly                           *)
(*        "bothdie"   guard and agent die together, and nobody freezes          *)
(*        "giveup"    a claimant cannot go on and releases                      *)
(*        "gc"        the owner deletes old epochs                              *)

Epochs == 1..MAXEP

VARIABLES
  owner,      \* the record [ep, node, ses, st, de: data epoch, cr: claimed to carry its node's volume of that epoch]
  lease,      \* per node: [ses, gone]
  over,       \* sessions called over without a CAS of `gone` (broken variants only)
  gs, ses,    \* per node: its session "off"|"settling"|"live"|"frozen", and its number
  fz,         \* per node: the cgroup that all containers are in is frozen
  paused,     \* per node: the machine is
  ct,         \* per node: the tenant's containers [st: none|run|drain, ep, ses]
  dk,         \* per node: a start that the engine has not carried out yet [ep, ses]
  vol,        \* per node: [mk: marker's epoch, data, torn: files behind their position, clean: same boot, sync: fsynced]
  ph, my,     \* per node: the agent's phase for the tenant, the epoch it claims or holds
  cut,        \* per node: the lineage of that epoch [src: predecessor, at: writes taken over of each file]
  cas, stray, \* per node: [st, rec, next: phase once it is applied]; given-up CASes that may yet be applied
  up, late,   \* per node and file: [st, ep, data, pre]; given-up uploads that may yet be applied
  bkt,        \* per epoch and file: what is in the bucket
  acked, nw,  \* writes acknowledged as durable; the next write
  gcr,        \* epoch below which the owner has decided to delete, 0: none
  f, zz       \* faults and releases left
vars == <<owner, lease, over, gs, ses, fz, paused, ct, dk, vol, ph, my, cut, cas, stray, up, late,
          bkt, acked, nw, gcr, f, zz>>

(* groups for UNCHANGED *)
records  == <<owner, lease, over>>
budget   == <<f, zz>>
writes   == <<acked, nw>>
sessions == <<gs, ses, fz, paused>>
agents   == <<ph, my, cut, cas>>
machine  == <<ct, dk, vol>>
flight   == <<stray, up, late>>

-----------------------------------------------------------------------------
Max(a, b) == IF a > b THEN a ELSE b
Min(a, b) == IF a < b THEN a ELSE b
Top(S)    == CHOOSE x \in S : \A y \in S : y <= x
Ids(s)    == {s[i] : i \in 1..Len(s)}
Held(d)   == UNION {Ids(d[x]) : x \in Files}                 \* every write in a volume or an epoch
Overlay(b, v)  == [i \in 1..Max(Len(b), Len(v)) |-> IF i <= Len(v) THEN v[i] ELSE b[i]]
Butlast(s)     == SubSeq(s, 1, Len(s) - 1)
IsPrefix(s, t) == Len(s) <= Len(t) /\ s = SubSeq(t, 1, Len(s))

NOTHING == [x \in Files |-> <<>>]
NOCT  == [st |-> "none", ep |-> 0, ses |-> 0]
NODK  == [ep |-> 0, ses |-> 0]
NOCAS == [st |-> "none", rec |-> 0, next |-> "idle"]
NOUP  == [st |-> "none", ep |-> 0, data |-> <<>>, pre |-> FALSE]
NOUPS == [x \in Files |-> NOUP]
NOVOL == [mk |-> 0, data |-> NOTHING, torn |-> {}, clean |-> TRUE, sync |-> FALSE]
NOCUT == [src |-> 0, at |-> [x \in Files |-> 0]]
Rec(e, n, s, t, d) == [ep |-> e, node |-> n, ses |-> s, st |-> t, de |-> d, cr |-> FALSE]
Sent(rec, next) == [st |-> "sent", rec |-> rec, next |-> next]

Some(d)   == \E x \in Files : d[x] # <<>>
Lens(d)  == [x \in Files |-> Len(d[x])]
Pos(n,x) == Len(vol[n].data[x]) + IF x \in vol[n].torn THEN 1 ELSE 0     \* as Litestream's own state says

Init ==
  /\ owner = Rec(0, "-", 0, "none", 0) /\ lease = [n \in Nodes |-> [ses |-> 0, gone |-> TRUE]] /\ over = {}
  /\ gs = [n \in Nodes |-> "off"] /\ ses = [n \in Nodes |-> 0] /\ fz = [n \in Nodes |-> TRUE]
  /\ paused = [n \in Nodes |-> FALSE]
  /\ ct = [n \in Nodes |-> NOCT] /\ dk = [n \in Nodes |-> NODK] /\ vol = [n \in Nodes |-> NOVOL]
  /\ ph = [n \in Nodes |-> "idle"] /\ my = [n \in Nodes |-> 0] /\ cut = [n \in Nodes |-> NOCUT]
  /\ cas = [n \in Nodes |-> NOCAS] /\ stray = {} /\ up = [n \in Nodes |-> NOUPS] /\ late = {}
  /\ bkt = [e \in Epochs |-> NOTHING] /\ acked = {} /\ nw = 1 /\ gcr = 0 /\ f = FAULTS /\ zz = SLEEPS

Fault(k) == k \in KINDS /\ f > 0 /\ f' = f - 1
Awake(n) == ~paused[n]
Live(n)  == gs[n] = "live" /\ ~paused[n]
Names(n) == owner.node = n /\ owner.ep = my[n] /\ owner.ses = ses[n]     \* the record names this node, epoch and session
MayCas(n) == ETAG = "fresh" \/ Names(n)    \* with the etag of its own last write any other record fails it

(* What is left of a dead agent's requests: they may still arrive. *)
Orphan(n) ==
  /\ stray' = IF cas[n].st = "sent" THEN stray \cup {cas[n].rec} ELSE stray
  /\ cas'   = [cas EXCEPT ![n] = NOCAS]
OrphanUp(n) ==
  /\ late' = late \cup {[ep |-> up[n][x].ep, file |-> x, data |-> up[n][x].data] :
                          x \in {y \in Files : up[n][y].st = "sent"}}
  /\ up'   = [up EXCEPT ![n] = NOUPS]
KeepUp == UNCHANGED <<up, late>>
Forget(n) == /\ ph' = [ph EXCEPT ![n] = "idle"] /\ my' = [my EXCEPT ![n] = 0] /\ cut' = [cut EXCEPT ![n] = NOCUT]
Killed(n) == /\ ct' = [ct EXCEPT ![n] = NOCT] /\ OrphanUp(n)

-----------------------------------------------------------------------------
(* Sessions: the guard. Freeze, thaw, kill, and a new one. *)

Freeze(n) ==         \* the deadline: nothing runs, and all of it may run again
  /\ Live(n) /\ Fault("partition")
  /\ gs' = [gs EXCEPT ![n] = "frozen"] /\ fz' = [fz EXCEPT ![n] = TRUE]
  /\ UNCHANGED <<records, ses, paused, machine, agents, flight, bkt, writes, gcr, zz>>

Thaw(n) ==           \* a renewal that was applied: nobody has revoked the session
  /\ Awake(n) /\ gs[n] = "frozen" /\ (THAW = "any" \/ ~lease[n].gone)
  /\ gs' = [gs EXCEPT ![n] = "live"] /\ fz' = [fz EXCEPT ![n] = FALSE]
  /\ UNCHANGED <<records, ses, paused, machine, agents, flight, bkt, writes, gcr, budget>>

Lost(n) ==           \* a renewal answers 412, or it was frozen for too long: kill. The parent stays frozen.
  /\ Awake(n) /\ (gs[n] = "frozen" \/ (gs[n] \in {"live", "settling"} /\ lease[n].gone))
  /\ gs' = [gs EXCEPT ![n] = "off"] /\ fz' = [fz EXCEPT ![n] = FROZEN]
  /\ dk' = [dk EXCEPT ![n] = IF FROZEN THEN NODK ELSE @]
  /\ Forget(n) /\ Orphan(n) /\ Killed(n)
  /\ UNCHANGED <<records, ses, paused, vol, bkt, writes, gcr, budget>>

GuardLate(n) ==      \* the guard dies; the next one comes after the deadline, and freezes what it finds
  /\ Awake(n) /\ gs[n] # "off" /\ Fault("guard")
  /\ gs' = [gs EXCEPT ![n] = "off"] /\ fz' = [fz EXCEPT ![n] = @ \/ RESTART = "frozen"]
  /\ IF ph[n] \in {"claim", "wake"} THEN UNCHANGED <<agents, stray>> ELSE Forget(n) /\ Orphan(n)
  /\ IF ct[n].st = "none" THEN OrphanUp(n) ELSE KeepUp
  /\ UNCHANGED <<records, ses, paused, machine, bkt, writes, gcr, zz>>

LateResume(n) ==     \* broken: it goes on in the session whose deadline has passed
  /\ RESUME = "any" /\ Awake(n) /\ gs[n] = "off" /\ ct[n].st # "none" /\ ct[n].ses = ses[n]
  /\ gs' = [gs EXCEPT ![n] = "live"] /\ fz' = [fz EXCEPT ![n] = FALSE]
  /\ UNCHANGED <<records, ses, paused, machine, agents, flight, bkt, writes, gcr, budget>>

BothDie(n) ==        \* outside of the assumptions: nobody is left to freeze
  /\ Live(n) /\ Fault("bothdie")
  /\ gs' = [gs EXCEPT ![n] = "off"] /\ Forget(n) /\ Orphan(n)
  /\ IF ct[n].st = "none" THEN OrphanUp(n) ELSE KeepUp
  /\ UNCHANGED <<records, ses, fz, paused, machine, bkt, writes, gcr, zz>>

NewSession(n) ==     \* the promise: nothing of an earlier session runs here, nor starts later
  /\ Awake(n) /\ gs[n] = "off" /\ lease[n].ses < MAXSES /\ (RESTART = "frozen" => fz[n])
  /\ lease' = [lease EXCEPT ![n] = [ses |-> @.ses + 1, gone |-> FALSE]]
  /\ ses' = [ses EXCEPT ![n] = lease[n].ses + 1] /\ gs' = [gs EXCEPT ![n] = "settling"]
  /\ IF ph[n] \in {"claim", "wake"} THEN UNCHANGED <<agents, stray>> ELSE Forget(n) /\ Orphan(n)
  /\ UNCHANGED <<owner, over, fz, paused, machine, up, late, bkt, writes, gcr, budget>>

Settled(n) ==        \* what was frozen is adopted into the session, or killed: thaw
  /\ Awake(n) /\ gs[n] = "settling" /\ ~lease[n].gone
  /\ SETTLE = "adopted" => (ct[n].st = "none" \/ ct[n].ses = ses[n]) /\ dk[n] = NODK
  /\ gs' = [gs EXCEPT ![n] = "live"] /\ fz' = [fz EXCEPT ![n] = FALSE]
  /\ UNCHANGED <<records, ses, paused, machine, agents, flight, bkt, writes, gcr, budget>>

CleanStop(n) ==      \* everything is released: the lease says so
  /\ Live(n) /\ ph[n] = "idle" /\ ct[n].st = "none" /\ dk[n] = NODK /\ Fault("stop")
  /\ gs' = [gs EXCEPT ![n] = "off"] /\ fz' = [fz EXCEPT ![n] = TRUE]
  /\ lease' = [lease EXCEPT ![n] = IF LEASEDEL THEN [ses |-> 0, gone |-> TRUE] ELSE [@ EXCEPT !.gone = TRUE]]
  /\ UNCHANGED <<owner, over, ses, paused, machine, agents, flight, bkt, writes, gcr, zz>>

ObserveExpired(n) == \* another node saw the lease silent for ttl + margin: by Lease.tla nothing of it runs
  LET s == lease[n].ses IN
  /\ s > 0 /\ ~lease[n].gone /\ <<n, s>> \notin over
  /\ IF gs[n] = "settling" /\ ~paused[n] THEN Fault("partition")     \* it renews, too
     ELSE (gs[n] # "live" \/ paused[n] \/ ~MARGIN) /\ UNCHANGED f
  /\ IF REVOKE THEN lease' = [lease EXCEPT ![n].gone = TRUE] /\ UNCHANGED over
               ELSE over' = over \cup {<<n, s>>} /\ UNCHANGED lease
  /\ UNCHANGED <<owner, sessions, machine, agents, flight, bkt, writes, gcr, zz>>

ObserveMissing ==    \* broken, where leases are deleted: no lease, so its session is over
  /\ LEASEDEL /\ owner.ep > 0 /\ lease[owner.node].ses = 0
  /\ <<owner.node, owner.ses>> \notin over /\ over' = over \cup {<<owner.node, owner.ses>>}
  /\ UNCHANGED <<owner, lease, sessions, machine, agents, flight, bkt, writes, gcr, budget>>

SessionOver(n, s) ==
  \/ lease[n].ses > s
  \/ SESSIONS = "other" /\ \E x \in 1..lease[n].ses : x # s       \* a lease that was read earlier on
  \/ lease[n].ses = s /\ lease[n].gone
  \/ <<n, s>> \in over

-----------------------------------------------------------------------------
(* Other faults *)

AgentCrash(n) ==     \* the guard starts another one at once, in the same session
  /\ Awake(n) /\ gs[n] # "off" /\ Fault("agent") /\ Forget(n) /\ Orphan(n)
  /\ IF ct[n].st = "none" THEN OrphanUp(n) ELSE KeepUp
  /\ UNCHANGED <<records, sessions, machine, bkt, writes, gcr, zz>>

MachineCrash(n) ==
  /\ Awake(n) /\ gs[n] # "off" /\ Fault("machine") /\ Forget(n) /\ Orphan(n) /\ Killed(n)
  /\ gs' = [gs EXCEPT ![n] = "off"] /\ fz' = [fz EXCEPT ![n] = TRUE] /\ dk' = [dk EXCEPT ![n] = NODK]
  /\ \/ vol' = [vol EXCEPT ![n].clean = FALSE]
     \/ /\ "powerloss" \in KINDS /\ ~vol[n].sync     \* the tail is gone; Litestream's own state of it perhaps not
        /\ \E x \in Files : vol[n].data[x] # <<>> /\ \E t \in {{}, {x}} :
             vol' = [vol EXCEPT ![n].clean = FALSE, ![n].data[x] = Butlast(@), ![n].torn = t]
  /\ UNCHANGED <<records, ses, paused, bkt, writes, gcr, zz>>

OldDisk(n) ==
  /\ gs[n] = "off" /\ ct[n].st = "none" /\ Fault("olddisk")
  /\ \E x \in Files : vol[n].data[x] # <<>> /\
       vol' = [vol EXCEPT ![n].data[x] = Butlast(@), ![n].torn = {}, ![n].clean = FALSE]
  /\ UNCHANGED <<records, sessions, ct, dk, agents, flight, bkt, writes, gcr, zz>>

Pause(n) ==
  /\ Live(n) /\ Fault("pause") /\ paused' = [paused EXCEPT ![n] = TRUE]
  /\ UNCHANGED <<records, gs, ses, fz, machine, agents, flight, bkt, writes, gcr, zz>>
Resume(n) ==
  /\ paused[n] /\ paused' = [paused EXCEPT ![n] = FALSE]
  /\ UNCHANGED <<records, gs, ses, fz, machine, agents, flight, bkt, writes, gcr, budget>>

-----------------------------------------------------------------------------
(* Taking up what runs *)

KillOld(n) ==        \* containers that nobody answers for, and starts that nobody waits for
  /\ Awake(n) /\ gs[n] \in {"settling", "live"} /\ ph[n] = "idle" /\ (ct[n].st # "none" \/ dk[n] # NODK)
  /\ Killed(n) /\ dk' = [dk EXCEPT ![n] = NODK]
  /\ UNCHANGED <<records, sessions, vol, agents, stray, bkt, writes, gcr, budget>>

Adopt(n) ==          \* same epoch, this session, containers kept; the record is written anew in any case
  /\ Awake(n) /\ gs[n] \in {"settling", "live"} /\ ph[n] = "idle" /\ ct[n].st # "none"
  /\ owner.node = n /\ owner.ep = ct[n].ep /\ owner.ses \in {ct[n].ses, ses[n]} /\ owner.st \in {"claimed", "running"}
  /\ my' = [my EXCEPT ![n] = owner.ep] /\ ph' = [ph EXCEPT ![n] = "adopt"]
  /\ cas' = [cas EXCEPT ![n] = Sent([owner EXCEPT !.ses = ses[n]], ct[n].st)]
  /\ UNCHANGED <<records, sessions, machine, cut, flight, bkt, writes, gcr, budget>>

-----------------------------------------------------------------------------
(* Claim *)

Free(n) ==
  IF owner.st \in {"none", "asleep"} THEN TRUE
  ELSE \/ SessionOver(owner.node, owner.ses)
       \/ OWNREC /\ owner.node = n /\ owner.ses <= ses[n]         \* mine, and I do not hold it

Mine(n) ==           \* this volume is what the record speaks of
  /\ owner.ep > 0 /\ owner.node = n /\ vol[n].mk = owner.ep /\ (DATACHECK => owner.de = owner.ep)
Compared  == IF POSCHECK = "one" THEN {CHOOSE x \in Files : TRUE} ELSE Files
Carrying(n) ==       \* this node claimed it to carry this volume, and came no further: nothing has run on it since
  /\ owner.cr /\ owner.st = "claimed" /\ owner.node = n /\ owner.de > 0 /\ vol[n].mk = owner.de
NotBehind(n) == POSCHECK = "none" \/ \A x \in Compared : Pos(n, x) >= Len(bkt[vol[n].mk][x])
Exactly(n)   == POSCHECK = "none" \/ \A x \in Compared : Pos(n, x) =  Len(bkt[owner.ep][x])
Continues(n) ==
  /\ Mine(n)
  /\ \/ (vol[n].clean \/ REBOOT = "continue") /\ NotBehind(n)
     \/ owner.st = "asleep" /\ Exactly(n)

Listed(e) == [src |-> e, at |-> IF e = 0 THEN NOCUT.at ELSE Lens(bkt[e])]
DataBelow(e) == {x \in Epochs : x < e /\ Some(bkt[x])}
From(e, d) ==        \* the epoch that epoch e is restored from, 0: none
  LET below == DataBelow(IF EPOCHS = "reused" THEN e + 1 ELSE e) IN
  IF d = 0 \/ SOURCE = "newest" THEN IF below = {} THEN 0 ELSE Top(below) ELSE d

Claim(n) ==
  /\ Live(n) /\ ph[n] = "idle" /\ ct[n].st = "none" /\ dk[n] = NODK /\ Free(n)
  /\ LET e == IF EPOCHS = "reused" /\ owner.ep > 0 THEN owner.ep ELSE owner.ep + 1
         keep == /\ Mine(n) \/ Carrying(n)
                 /\ NotBehind(n) /\ owner.st # "asleep" /\ (INTACT => vol[n].torn = {})
                 /\ (RPO = "async" /\ REBOOT = "carried") \/ REBOOT = "at-any-rpo"
         s == IF LISTING = "before" THEN From(e, owner.de) ELSE 0
     IN
     \/ /\ Continues(n)
        /\ cas' = [cas EXCEPT ![n] = Sent(Rec(owner.ep, n, ses[n], "running", owner.de), "start")]
        /\ ph' = [ph EXCEPT ![n] = "wake"] /\ my' = [my EXCEPT ![n] = owner.ep] /\ UNCHANGED cut
     \/ /\ ~Continues(n) /\ e <= MAXEP
        /\ cas' = [cas EXCEPT ![n] = Sent([Rec(e, n, ses[n], "claimed", owner.de) EXCEPT !.cr = keep],
                                          IF keep THEN "snap" ELSE IF s # 0 THEN "restore" ELSE "list")]
        /\ ph' = [ph EXCEPT ![n] = "claim"] /\ my' = [my EXCEPT ![n] = e]
        /\ cut' = [cut EXCEPT ![n] = IF keep THEN [Listed(owner.de) EXCEPT !.src = 0] ELSE IF s # 0 THEN Listed(s) ELSE [NOCUT EXCEPT !.src = owner.de]]
  /\ UNCHANGED <<records, sessions, machine, flight, bkt, writes, gcr, budget>>

Close(n) ==          \* release of a tenant that nothing runs of here: its record, if it is free
  /\ Awake(n) /\ gs[n] \in {"settling", "live"} /\ ph[n] = "idle" /\ ct[n].st = "none" /\ dk[n] = NODK
  /\ owner.st \in {"claimed", "running"} /\ Free(n) /\ zz > 0 /\ zz' = zz - 1
  /\ CLOSE = "any" \/ owner.node # n \/ (vol[n].mk = 0 /\ ~Some(vol[n].data))   \* else it is claimed and streamed first
  /\ cas' = [cas EXCEPT ![n] = Sent([owner EXCEPT !.node = n, !.ses = ses[n], !.st = "asleep"], "idle")]
  /\ ph' = [ph EXCEPT ![n] = "close"]
  /\ UNCHANGED <<records, sessions, machine, my, cut, flight, bkt, writes, gcr, f>>

-----------------------------------------------------------------------------
(* A CAS on its way. The store applies it at most once; every other one on the old etag is lost. *)

Refuse(m) == IF cas[m].st = "sent" THEN [cas[m] EXCEPT !.st = "no"] ELSE cas[m]
CasLand(n) ==
  /\ cas[n].st = "sent" /\ owner' = cas[n].rec /\ stray' = {}
  /\ cas' = [m \in Nodes |-> IF m = n THEN [cas[n] EXCEPT !.st = "ok"] ELSE Refuse(m)]
  /\ UNCHANGED <<lease, over, sessions, machine, ph, my, cut, up, late, bkt, writes, gcr, budget>>
StrayLand ==
  \E r \in stray :
  /\ owner' = r /\ stray' = {} /\ cas' = [m \in Nodes |-> Refuse(m)]
  /\ UNCHANGED <<lease, over, sessions, machine, ph, my, cut, up, late, bkt, writes, gcr, budget>>

CasTimeout(n) ==     \* broken: not there when it is read again, so it was not applied (yet)
  /\ AMBIG = "reread" /\ Awake(n) /\ cas[n].st = "sent" /\ ph[n] \in {"claim", "wake", "sleep"} /\ Fault("timeout")
  /\ Orphan(n) /\ UNCHANGED cut
  /\ IF ph[n] = "sleep"                                        \* keep running instead
     THEN /\ ph' = [ph EXCEPT ![n] = "run"] /\ UNCHANGED my
          /\ ct' = [ct EXCEPT ![n] = [st |-> "run", ep |-> my[n], ses |-> ses[n]]]
     ELSE /\ ph' = [ph EXCEPT ![n] = "idle"] /\ my' = [my EXCEPT ![n] = 0] /\ UNCHANGED ct
  /\ UNCHANGED <<records, sessions, dk, vol, up, late, bkt, writes, gcr, zz>>

TakeBack(n) ==       \* a release without an answer is taken back: the record says so before anything runs
  /\ AMBIG = "definite" /\ Awake(n) /\ cas[n].st = "sent" /\ ph[n] = "sleep" /\ Fault("timeout")
  /\ stray' = stray \cup {cas[n].rec} /\ ph' = [ph EXCEPT ![n] = "back"]
  /\ cas' = [cas EXCEPT ![n] = IF cas[n].rec.de = my[n]         \* what was given up is made ready anew
                               THEN Sent([cas[n].rec EXCEPT !.st = "running"], "start")
                               ELSE Sent([cas[n].rec EXCEPT !.st = "claimed"], "list")]
  /\ vol' = [vol EXCEPT ![n].sync = FALSE]
  /\ UNCHANGED <<records, sessions, ct, dk, my, cut, up, late, bkt, writes, gcr, zz>>

CasOk(n) ==
  /\ Awake(n) /\ cas[n].st = "ok"
  /\ IF CLAIMS = "session" /\ ph[n] \in {"claim", "wake"} /\ cas[n].rec.ses # ses[n]
     THEN /\ Forget(n) /\ UNCHANGED <<ct, dk, vol>>            \* its session has ended meanwhile: claim anew
     ELSE /\ ph' = [ph EXCEPT ![n] = cas[n].next]
          /\ my' = [my EXCEPT ![n] = IF cas[n].next = "idle" THEN 0 ELSE @]
          /\ cut' = [cut EXCEPT ![n] = IF ph[n] = "claim" THEN @
                                       ELSE IF cas[n].next = "list" THEN [NOCUT EXCEPT !.src = cas[n].rec.de] ELSE NOCUT]
          /\ vol' = IF ph[n] # "claim" /\ cas[n].next # "list" THEN vol
                    ELSE IF cas[n].next = "snap" THEN [vol EXCEPT ![n].mk = 0, ![n].torn = {}, ![n].clean = TRUE]
                    ELSE [vol EXCEPT ![n] = [NOVOL EXCEPT !.mk = IF MARKER = "create" THEN my[n] ELSE 0]]
          /\ dk' = IF cas[n].next = "start" THEN [dk EXCEPT ![n] = [ep |-> my[n], ses |-> ses[n]]] ELSE dk
          /\ ct' = IF ph[n] = "adopt" THEN [ct EXCEPT ![n].ses = ses[n]] ELSE ct
  /\ cas' = [cas EXCEPT ![n] = NOCAS]
  /\ UNCHANGED <<records, sessions, flight, bkt, writes, gcr, budget>>

CasNo(n) ==          \* 412, and the record carries somebody else's nonce
  /\ Awake(n) /\ cas[n].st = "no"
  /\ IF ph[n] = "back" /\ Names(n)                              \* an earlier write of its own: repeat on top of it
     THEN /\ cas' = [cas EXCEPT ![n].st = "sent"] /\ UNCHANGED <<ph, my, cut, ct, up, late>>
     ELSE /\ cas' = [cas EXCEPT ![n] = NOCAS] /\ Forget(n)
          /\ IF ph[n] \in {"adopt", "close"} THEN KeepUp /\ UNCHANGED ct ELSE Killed(n)
  /\ UNCHANGED <<records, sessions, dk, vol, stray, bkt, writes, gcr, budget>>

Ousted(n) ==         \* it sees that the record no longer names it
  /\ Awake(n) /\ cas[n].st = "none" /\ ~Names(n)
  /\ ph[n] \in {"list", "restore", "snap"} \/ (WATCH /\ ph[n] \in {"run", "drain"})
  /\ Forget(n) /\ Killed(n)
  /\ UNCHANGED <<records, sessions, dk, vol, cas, stray, bkt, writes, gcr, budget>>

-----------------------------------------------------------------------------
(* Cut, restore, settle *)

CutList(n) ==        \* one listing of what there is, after the claim: the cut, and the lineage
  /\ Awake(n) /\ ph[n] = "list"
  /\ LET s == From(my[n], cut[n].src)
         unread == BORN = "unread" /\ Fault("list")
     IN
     /\ unread \/ UNCHANGED f
     /\ IF s # 0 /\ ~unread /\ Some(bkt[s])
        THEN /\ cut' = [cut EXCEPT ![n] = Listed(s)] /\ ph' = [ph EXCEPT ![n] = "restore"] /\ UNCHANGED dk
        ELSE IF unread \/ (s = 0 /\ (BORN # "first" \/ my[n] = 1))
        THEN /\ cut' = [cut EXCEPT ![n] = NOCUT] /\ ph' = [ph EXCEPT ![n] = "start"]
             /\ dk' = [dk EXCEPT ![n] = [ep |-> my[n], ses |-> ses[n]]]
        ELSE /\ Names(n) /\ ph' = [ph EXCEPT ![n] = "lost"] /\ UNCHANGED <<cut, dk>>
  /\ UNCHANGED <<records, sessions, ct, vol, my, cas, flight, bkt, writes, gcr, zz>>

Taken(n, x) ==
  LET d == bkt[cut[n].src][x] IN IF CUT = "newest" THEN d ELSE SubSeq(d, 1, Min(cut[n].at[x], Len(d)))
RestoreRead(n) ==
  /\ Live(n) /\ ph[n] = "restore"
  /\ IF \E x \in Files : Len(bkt[cut[n].src][x]) < cut[n].at[x]                \* deleted under us: look again
     THEN ph' = [ph EXCEPT ![n] = "list"] /\ UNCHANGED vol
     ELSE /\ vol' = [vol EXCEPT ![n].data = [x \in Files |-> Taken(n, x)],
                                ![n].mk = IF MARKER \in {"create", "complete"} THEN my[n] ELSE 0]
          /\ ph' = [ph EXCEPT ![n] = "snap"]
  /\ UNCHANGED <<records, sessions, ct, dk, my, cut, cas, flight, bkt, writes, gcr, budget>>

Streams(n) == IF ct[n].st # "none" THEN ct[n].ep ELSE IF ph[n] = "snap" THEN my[n] ELSE 0
Confirmed(n, x) == up[n][x].st = "landed" /\ up[n][x].ep = Streams(n)

MarkEarly(n) ==      \* broken: the marker after the first file's snapshot
  /\ MARKER = "first" /\ Awake(n) /\ ph[n] = "snap" /\ \E x \in Files : Confirmed(n, x)
  /\ vol[n].mk # my[n] /\ vol' = [vol EXCEPT ![n].mk = my[n]]
  /\ UNCHANGED <<records, sessions, ct, dk, agents, flight, bkt, writes, gcr, budget>>

Hold(n) ==           \* first snapshots confirmed: marker, then data_epoch. A tenant that is born runs by then.
  /\ Awake(n) /\ cas[n].st = "none" /\ (ph[n] = "snap" \/ (ph[n] = "run" /\ Names(n) /\ owner.de # my[n]))
  /\ LET awaited == IF ph[n] = "run" THEN Files ELSE {x \in Files : vol[n].data[x] # <<>>} IN
     IF DATAEPOCH = "first" THEN \E x \in awaited : Confirmed(n, x)
     ELSE \A x \in awaited : Confirmed(n, x)
  /\ MayCas(n)
  /\ vol' = [vol EXCEPT ![n].mk = my[n]]
  /\ cas' = [cas EXCEPT ![n] = Sent(Rec(my[n], n, ses[n], "running", my[n]), IF ph[n] = "run" THEN "run" ELSE "start")]
  /\ ph' = [ph EXCEPT ![n] = IF @ = "run" THEN @ ELSE "torun"]
  /\ up' = IF ph[n] = "run" THEN up ELSE [up EXCEPT ![n] = [x \in Files |-> IF Confirmed(n, x) THEN NOUP ELSE @[x]]]
  /\ UNCHANGED <<records, sessions, ct, dk, my, cut, stray, late, bkt, writes, gcr, budget>>

GiveUp(n) ==         \* it cannot restore or start (disk full, no image): let others try
  /\ Awake(n) /\ ph[n] \in {"list", "restore", "snap"} /\ cas[n].st = "none" /\ MayCas(n) /\ Fault("giveup")
  /\ cas' = [cas EXCEPT ![n] = Sent([owner EXCEPT !.ep = my[n], !.node = n, !.ses = ses[n], !.st = "asleep"], "idle")]
  /\ ph' = [ph EXCEPT ![n] = "sleep"] /\ OrphanUp(n)
  /\ UNCHANGED <<records, sessions, machine, my, cut, stray, bkt, writes, gcr, zz>>

StartLand(n) ==      \* the engine carries out the start: late, maybe after the freeze, or after the kill
  /\ dk[n] # NODK /\ ct[n].st = "none" /\ Awake(n) /\ dk' = [dk EXCEPT ![n] = NODK]
  /\ ct' = [ct EXCEPT ![n] = [st |-> "run", ep |-> dk[n].ep, ses |-> dk[n].ses]]
  /\ ph' = [ph EXCEPT ![n] = IF @ = "start" THEN "run" ELSE @]
  /\ UNCHANGED <<records, sessions, vol, my, cut, cas, flight, bkt, writes, gcr, budget>>

-----------------------------------------------------------------------------
(* The tenant at work *)

Runs(n)  == ct[n].st = "run" /\ ~fz[n] /\ ~paused[n]
Owns(n)  == owner.ep = ct[n].ep /\ owner.node = n /\ owner.ses = ses[n] /\ owner.st = "running" /\ owner.de = owner.ep

Write(n) ==
  /\ Runs(n) /\ nw <= MAXW /\ nw' = nw + 1
  /\ \E x \in Files : vol' = [vol EXCEPT ![n].data[x] = Append(@, nw), ![n].sync = FALSE]
  /\ UNCHANGED <<records, sessions, ct, dk, agents, flight, bkt, acked, gcr, budget>>

Upload(n, x) ==
  /\ Streams(n) # 0 /\ ~fz[n] /\ Awake(n) /\ up[n][x].st # "sent"
  /\ vol[n].data[x] # <<>> /\ bkt[Streams(n)][x] # vol[n].data[x]
  /\ up' = [up EXCEPT ![n][x] = [st |-> "sent", ep |-> Streams(n), data |-> vol[n].data[x], pre |-> Owns(n)]]
  /\ UNCHANGED <<records, sessions, machine, agents, stray, late, bkt, writes, gcr, budget>>

UploadLand(n, x) ==
  /\ up[n][x].st = "sent" /\ up' = [up EXCEPT ![n][x].st = "landed"]
  /\ bkt' = [bkt EXCEPT ![up[n][x].ep][x] = Overlay(@, up[n][x].data)]
  /\ UNCHANGED <<records, sessions, machine, agents, stray, late, writes, gcr, budget>>
LateLand ==
  \E u \in late : late' = late \ {u} /\ bkt' = [bkt EXCEPT ![u.ep][u.file] = Overlay(@, u.data)]
  /\ UNCHANGED <<records, sessions, machine, agents, stray, up, writes, gcr, budget>>

Ack(n) ==            \* every file confirmed, then the owner record read, then the session asked
  LET e == ct[n].ep
      landed == {x \in Files : Confirmed(n, x)}
      Known(x) == x \in landed \/ bkt[e][x] = vol[n].data[x]
      ids == IF DURABLE = "one" THEN Held(vol[n].data) ELSE UNION {Ids(up[n][x].data) : x \in landed}
      pre == \A x \in landed : up[n][x].pre
  IN
  /\ RPO = "zero" /\ Live(n) /\ ph[n] \in {"run", "drain"} /\ ct[n].st # "none" /\ landed # {}
  /\ DURABLE = "all" => \A x \in Files : Known(x)
  /\ up' = [up EXCEPT ![n] = [x \in Files |-> IF x \in landed THEN NOUP ELSE @[x]]]
  /\ IF REREAD = "never" \/ (REREAD = "before" /\ pre) \/ (REREAD = "after" /\ Owns(n))
     THEN acked' = acked \cup ids ELSE UNCHANGED acked         \* not ours, or not settled yet: unknown
  /\ UNCHANGED <<records, sessions, machine, agents, stray, late, bkt, nw, gcr, budget>>

Drain(n) ==          \* hibernate or release: worker stopped, sidecar still up
  /\ Live(n) /\ ph[n] = "run" /\ ct[n].st = "run" /\ zz > 0 /\ zz' = zz - 1 /\ cas[n].st = "none"
  /\ ct' = [ct EXCEPT ![n].st = "drain"] /\ ph' = [ph EXCEPT ![n] = "drain"]
  /\ UNCHANGED <<records, sessions, dk, vol, my, cut, cas, flight, bkt, writes, gcr, f>>

Sleep(n) ==          \* last bytes confirmed, sidecar stopped, volume flushed, then the CAS
  /\ Live(n) /\ ph[n] = "drain" /\ cas[n].st = "none" /\ MayCas(n)
  /\ LET there == {x \in Files : vol[n].data[x] # <<>>}
         Done(x) == bkt[my[n]][x] = vol[n].data[x] /\ up[n][x].st # "sent"
         de == IF there # {} THEN my[n] ELSE owner.de
     IN
     /\ IF RELEASE = "one" /\ there # {} THEN \E x \in there : Done(x) ELSE \A x \in there : Done(x)
     /\ cas' = [cas EXCEPT ![n] = Sent(Rec(my[n], n, ses[n], "asleep", de), "idle")]
     /\ vol' = [vol EXCEPT ![n].sync = TRUE, ![n].mk = IF there # {} THEN my[n] ELSE @]
  /\ ph' = [ph EXCEPT ![n] = "sleep"] /\ Killed(n)
  /\ UNCHANGED <<records, sessions, dk, my, cut, stray, bkt, writes, gcr, budget>>

-----------------------------------------------------------------------------
(* The owner deletes: it reads the record, then deletes, at any pace *)

GCRead ==
  /\ gcr = 0 /\ owner.ep > 1 /\ Fault("gc")
  /\ GC = "below-data" => owner.de = owner.ep /\ owner.st = "running"
  /\ gcr' = owner.ep
  /\ UNCHANGED <<records, sessions, machine, agents, flight, bkt, writes, zz>>
GCDelete ==
  /\ gcr > 0 /\ gcr' = 0
  /\ \E e \in Epochs : e < gcr /\ Some(bkt[e]) /\ bkt' = [bkt EXCEPT ![e] = NOTHING]
  /\ UNCHANGED <<records, sessions, machine, agents, flight, writes, budget>>

-----------------------------------------------------------------------------
Steps(n) == \/ Thaw(n) \/ Lost(n) \/ LateResume(n) \/ NewSession(n) \/ Settled(n) \/ ObserveExpired(n) \/ Resume(n)
            \/ KillOld(n) \/ Adopt(n) \/ Claim(n) \/ CasLand(n) \/ CasOk(n) \/ CasNo(n) \/ Ousted(n)
            \/ CutList(n) \/ RestoreRead(n) \/ MarkEarly(n) \/ Hold(n) \/ StartLand(n) \/ Ack(n) \/ Sleep(n)
            \/ \E x \in Files : Upload(n, x) \/ UploadLand(n, x)
Harm(n)  == \/ Freeze(n) \/ GuardLate(n) \/ BothDie(n) \/ AgentCrash(n) \/ MachineCrash(n) \/ OldDisk(n) \/ Pause(n)
            \/ CleanStop(n) \/ CasTimeout(n) \/ TakeBack(n) \/ GiveUp(n)
Next == \/ \E n \in Nodes : Steps(n) \/ Harm(n) \/ Write(n) \/ Drain(n) \/ Close(n)
        \/ StrayLand \/ LateLand \/ ObserveMissing \/ GCRead \/ GCDelete

Fair == \A n \in Nodes :
  /\ WF_vars(Thaw(n)) /\ WF_vars(Lost(n)) /\ WF_vars(NewSession(n)) /\ WF_vars(Settled(n))
  /\ WF_vars(ObserveExpired(n)) /\ WF_vars(Resume(n)) /\ WF_vars(Adopt(n)) /\ WF_vars(KillOld(n))
  /\ WF_vars(Claim(n)) /\ WF_vars(CasLand(n)) /\ WF_vars(CasOk(n)) /\ WF_vars(CasNo(n)) /\ WF_vars(Ousted(n))
  /\ WF_vars(CutList(n)) /\ WF_vars(RestoreRead(n)) /\ WF_vars(Hold(n)) /\ WF_vars(StartLand(n))
  /\ WF_vars(Ack(n)) /\ WF_vars(Sleep(n)) /\ \A x \in Files : WF_vars(Upload(n, x)) /\ WF_vars(UploadLand(n, x))
Spec     == Init /\ [][Next]_vars
FairSpec == Spec /\ Fair

-----------------------------------------------------------------------------
(* Safety *)
OneWriter   == Cardinality({n \in Nodes : Runs(n)}) <= 1
RunsOwned   == \A n \in Nodes : Runs(n) => owner.node = n /\ owner.ep = ct[n].ep
RunsCurrent == \A n \in Nodes :                    \* the owner's tenant shows every acknowledged write
                 Runs(n) /\ owner.node = n /\ owner.ep = ct[n].ep => acked \subseteq Held(vol[n].data)
AckHeld     == acked # {} => owner.de # 0 /\ acked \subseteq Held(bkt[owner.de])    \* and the next restore finds it
RanHasData  == owner.st = "running" => owner.de = owner.ep
NoStale     == \A n \in Nodes : Runs(n) => acked \subseteq Held(vol[n].data)        \* no running copy is behind
NotLost     == \A n \in Nodes : ph[n] # "lost"
LineageTrue == \A n \in Nodes :                    \* what an epoch starts with is what its lineage says, no more
                 ph[n] = "snap" /\ cut[n].src # 0 /\ Names(n) /\ LISTING = "claimed"
                   => cut[n].at = Lens(vol[n].data)
CarriedWhole == \A n \in Nodes :                   \* a volume that is carried has what it was compared with
                 ph[n] = "snap" /\ cut[n].src = 0 => \A x \in Files : Len(vol[n].data[x]) >= cut[n].at[x]
OneHistory  == \A n \in Nodes :                    \* an epoch's prefix and its running volume have one history
                 Runs(n) /\ owner.node = n /\ owner.ep = ct[n].ep
                   => \A x \in Files : IsPrefix(bkt[ct[n].ep][x], vol[n].data[x])
Lossless    == LET v == vol[owner.node] IN         \* what was released in order is in the bucket, all of it
                 owner.st = "asleep" /\ owner.de = owner.ep /\ v.mk = owner.ep => Held(v.data) \subseteq Held(bkt[owner.ep])
Sym         == Permutations(Nodes)

(* Liveness, for faults and releases that end *)
Served      == \E n \in Nodes : Runs(n) /\ owner.node = n /\ owner.ep = ct[n].ep /\ owner.ses = ses[n]
ComesBack   == []<>Served
OneInTheEnd == <>[]OneWriter
=============================================================================
