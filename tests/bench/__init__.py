"""Measurements: one module a subject, each with `run() -> Iterable[Figure]`.

Run by `./tests/run bench [-o FILE] [NAME...]`.
"""
