"""Measurements: one module a subject, each with `run() -> Iterable[Figure]`; `./tests/run bench [-o FILE] [NAME...]`."""
