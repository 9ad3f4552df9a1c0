"""Durable workflows on one SQLite file. Stands alone: imports nothing else of this project."""
