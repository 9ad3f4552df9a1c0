"""Programs that a measurement of this project's own runs, each in a process of its own.

`python -m tests.bench.programs.NAME ARGUMENTS` prints one JSON line: what was measured.
"""
