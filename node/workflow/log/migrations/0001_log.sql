-- The log: what happened, append-only. Everything else in this file can be derived from it.
CREATE TABLE log (
  workflow TEXT    NOT NULL,  -- the run's id
  seq      INTEGER NOT NULL,  -- 1, 2, 3, … within the run, without gaps
  at       INTEGER NOT NULL,  -- unix time in milliseconds; never falls within a run
  kind     TEXT    NOT NULL,
  body     TEXT    NOT NULL,  -- a JSON object; `<key>_ref` stands for `<key>` and names a payload
  PRIMARY KEY (workflow, seq)
) STRICT, WITHOUT ROWID;

-- One row of current state per run.
CREATE TABLE workflows (
  id         TEXT    NOT NULL PRIMARY KEY,
  name       TEXT    NOT NULL,
  state      TEXT    NOT NULL CHECK (state IN ('running', 'completed', 'failed', 'cancelled', 'blocked')),
  input_hash TEXT    NOT NULL,
  last_seq   INTEGER NOT NULL,  -- the newest event in the log
  active     INTEGER NOT NULL,  -- activities asked for and not waiting for their next attempt
  waits      TEXT    NOT NULL,  -- a JSON array: what it waits for
  user_state TEXT,              -- JSON, as the workflow's code set it
  error      TEXT,              -- a JSON object: why it failed, or both sides of the difference that blocks it
  created_at INTEGER NOT NULL,  -- unix time in milliseconds, as all times
  updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX workflows_by_age ON workflows (created_at, id);
CREATE INDEX workflows_active ON workflows (id) WHERE active > 0;
CREATE INDEX workflows_blocked ON workflows (id) WHERE state = 'blocked';

-- What is due when: sleeps, ends of waits for a signal, next attempts. `id` is the id of the step in the run.
CREATE TABLE timers (
  workflow TEXT    NOT NULL,
  id       INTEGER NOT NULL,
  due      INTEGER NOT NULL,
  PRIMARY KEY (workflow, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX timers_by_due ON timers (due);

-- Signals that were sent with an id, so that a repeated call is the same signal.
CREATE TABLE signals (
  workflow TEXT    NOT NULL,
  id       TEXT    NOT NULL,
  seq      INTEGER NOT NULL,  -- its event in the log
  PRIMARY KEY (workflow, id)
) STRICT, WITHOUT ROWID;

-- Large values, once each.
CREATE TABLE payloads (
  hash TEXT NOT NULL PRIMARY KEY,  -- SHA-256 of `body`, hex
  body TEXT NOT NULL               -- JSON
) STRICT;
