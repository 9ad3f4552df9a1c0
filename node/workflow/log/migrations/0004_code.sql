-- The code that the open runs were last replayed with.
CREATE TABLE code (
  id     INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
  digest TEXT    NOT NULL
) STRICT;
