"""The rules, pure: what a run's code, a queue or a schedule does next. History and time come in as values; no I/O."""
