"""Serves one log: loads runs, appends what the core decides, and acts on what is durable."""
