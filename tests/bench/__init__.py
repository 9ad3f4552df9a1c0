"""Measurements: one module a subject, each with `run(*, quick) -> Iterable[Figure]`.

Run by `./tests/run bench [-o FILE] [--quick] [NAME...]`.
"""
