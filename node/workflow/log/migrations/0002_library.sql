-- More states and columns for a run; queues, schedules, attributes; payloads know how often they are named.

CREATE TABLE workflows_2 (
  id         TEXT    NOT NULL PRIMARY KEY,
  name       TEXT    NOT NULL,
  state      TEXT    NOT NULL CHECK (state IN
    ('queued', 'running', 'blocked', 'completed', 'failed', 'cancelled', 'terminated', 'continued')),
  input_hash TEXT    NOT NULL,
  last_seq   INTEGER NOT NULL,  -- the newest event in the log
  active     INTEGER NOT NULL,  -- activities asked for and not waiting for their next attempt
  waits      TEXT    NOT NULL,  -- a JSON array: what it waits for
  user_state TEXT,              -- JSON, as the workflow's code set it
  error      TEXT,              -- a JSON object: why it failed, or both sides of the difference that blocks it
  created_at INTEGER NOT NULL,  -- unix time in milliseconds, as all times
  updated_at INTEGER NOT NULL,
  closed_at  INTEGER,           -- NULL until it has ended
  paused     INTEGER NOT NULL DEFAULT 0,  -- 1: nothing of it goes on until it is resumed
  parent         TEXT,          -- the run that started it as its child
  parent_policy  TEXT,          -- what becomes of it when its parent closes
  continued_from TEXT,          -- the run that it goes on for
  continued_to   TEXT,          -- the run that goes on for it
  forked_from    TEXT,          -- the run whose first events it shares
  schedule       TEXT,          -- the schedule that started it
  queue          TEXT,          -- NULL: never waited in one
  queue_key      TEXT,          -- runs of one key share a limit
  priority       INTEGER NOT NULL DEFAULT 0,  -- lower goes first
  place          INTEGER,       -- its turn in the queue: the smallest goes first
  admitted_at    INTEGER,       -- when it left the queue
  attributes     TEXT           -- a JSON object of the user's, for search
) STRICT, WITHOUT ROWID;

INSERT INTO workflows_2 (id, name, state, input_hash, last_seq, active, waits, user_state, error, created_at, updated_at,
                         closed_at)
SELECT id, name, state, input_hash, last_seq, active, waits, user_state, error, created_at, updated_at,
       CASE WHEN state IN ('completed', 'failed', 'cancelled') THEN updated_at END
FROM workflows;

DROP TABLE workflows;
ALTER TABLE workflows_2 RENAME TO workflows;

CREATE INDEX workflows_by_age ON workflows (created_at, id);
CREATE INDEX workflows_by_state ON workflows (state, created_at);
CREATE INDEX workflows_by_name ON workflows (name, created_at);
CREATE INDEX workflows_active ON workflows (id) WHERE active > 0;
CREATE INDEX workflows_closed ON workflows (closed_at) WHERE closed_at IS NOT NULL;
CREATE INDEX workflows_by_parent ON workflows (parent) WHERE parent IS NOT NULL;
CREATE INDEX workflows_by_schedule ON workflows (schedule, created_at) WHERE schedule IS NOT NULL;
CREATE INDEX workflows_queued ON workflows (queue, state, place) WHERE queue IS NOT NULL;
CREATE INDEX workflows_admitted ON workflows (queue, admitted_at) WHERE admitted_at IS NOT NULL;

-- What `attributes` says, to search by; kept by the triggers below.
CREATE TABLE attributes (
  name     TEXT NOT NULL,
  value    ANY,               -- text or a number; true and false are 1 and 0
  workflow TEXT NOT NULL,
  PRIMARY KEY (name, value, workflow)
) STRICT, WITHOUT ROWID;

CREATE INDEX attributes_by_workflow ON attributes (workflow);

CREATE TRIGGER attributes_of_a_new_run AFTER INSERT ON workflows WHEN new.attributes IS NOT NULL BEGIN
  INSERT OR IGNORE INTO attributes SELECT key, atom, new.id FROM json_each(new.attributes);
END;

CREATE TRIGGER attributes_of_a_changed_run AFTER UPDATE OF attributes ON workflows
WHEN new.attributes IS NOT old.attributes BEGIN
  DELETE FROM attributes WHERE workflow = new.id;
  INSERT OR IGNORE INTO attributes SELECT key, atom, new.id FROM json_each(new.attributes);
END;

CREATE TRIGGER attributes_of_a_removed_run AFTER DELETE ON workflows WHEN old.attributes IS NOT NULL BEGIN
  DELETE FROM attributes WHERE workflow = old.id;
END;

-- The newest heartbeat of an activity that runs: its details go to the next attempt.
CREATE TABLE heartbeats (
  workflow TEXT    NOT NULL,
  id       INTEGER NOT NULL,  -- the step in the run
  attempt  INTEGER NOT NULL,
  at       INTEGER NOT NULL,
  details  TEXT    NOT NULL,  -- JSON
  PRIMARY KEY (workflow, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE queues (
  name           TEXT NOT NULL PRIMARY KEY,
  concurrency    INTEGER,     -- runs at a time; NULL: no bound
  per_key        INTEGER,     -- runs of one key at a time
  rate_limit     INTEGER,     -- runs that begin within `rate_period`
  rate_period    INTEGER,     -- milliseconds
  paused         INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE schedules (
  id         TEXT    NOT NULL PRIMARY KEY,
  spec       TEXT    NOT NULL,  -- a JSON object: workflow, cron, time zone, policies
  input      TEXT    NOT NULL,  -- JSON
  paused     INTEGER NOT NULL DEFAULT 0,
  looked_at  INTEGER NOT NULL,  -- every time up to this one is decided
  next_at    INTEGER,           -- when to look again; NULL: paused, or it never fires again
  note       TEXT,              -- what was last left out, and why
  forgotten  INTEGER NOT NULL DEFAULT 0,  -- the newest time whose firing is no longer kept: none up to it fires again
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What became of each time of a schedule: a clock that goes back finds here what is done.
CREATE TABLE firings (
  schedule TEXT    NOT NULL,
  at       INTEGER NOT NULL,  -- the time that the schedule names
  outcome  TEXT    NOT NULL CHECK (outcome IN ('started', 'skipped', 'buffered')),
  workflow TEXT,              -- the run that it started
  PRIMARY KEY (schedule, at)
) STRICT, WITHOUT ROWID;

-- How many events name a payload: the last one that goes takes it along.
ALTER TABLE payloads ADD COLUMN uses INTEGER NOT NULL DEFAULT 0;

UPDATE payloads SET uses = named.times FROM (
  SELECT field.atom AS hash, count(*) AS times FROM log, json_each(log.body) AS field
  WHERE field.key LIKE '%\_ref' ESCAPE '\' GROUP BY 1
) AS named WHERE payloads.hash = named.hash;
