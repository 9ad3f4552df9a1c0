"""Programs that the workflow benchmark runs: the library itself, its floor, its peers, each in a process of its own.

    PROGRAM FOLDER DURABILITY AT_ONCE SECONDS

runs sequential workflows of ten trivial steps, AT_ONCE of them side by side, for about SECONDS after a warm-up, and
prints one JSON line: {"steps": int, "seconds": float}. The peers' programs import nothing of this project: they run in
a virtual environment of their own.
"""
