-- What one run has for another and what is not recorded there yet: starts, signals, cancellations, ends of children.
CREATE TABLE letters (
  sender  TEXT    NOT NULL,
  step    INTEGER NOT NULL,  -- the step of the sender that it is; 0: the sender has ended
  target  TEXT    NOT NULL,
  kind    TEXT    NOT NULL,  -- of the event that it becomes at its target
  body    TEXT    NOT NULL,  -- a JSON object
  payload TEXT,              -- JSON
  PRIMARY KEY (sender, step, target)
) STRICT, WITHOUT ROWID;

ALTER TABLE workflows ADD COLUMN parent_step INTEGER;  -- the step in the parent that waits for this run
