"""Where the author's activities run, one attempt at a time, and what they may use there."""
