-- What one run has for another and what is not recorded there yet: starts, signals, cancellations, ends of children.
CREATE TABLE letters (
  sender  TEXT    NOT NULL,
  seq     INTEGER NOT NULL,  -- the event of the sender that it follows from
  target  TEXT    NOT NULL,
  kind    TEXT    NOT NULL,  -- of the event that it becomes at its target
  body    TEXT    NOT NULL,  -- a JSON object
  payload TEXT,              -- JSON
  PRIMARY KEY (sender, seq, target)
) STRICT, WITHOUT ROWID;

ALTER TABLE workflows ADD COLUMN parent_step INTEGER;  -- the step in the parent that waits for this run
