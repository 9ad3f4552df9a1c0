"""The agent of one machine. `app` composes custody (the data), runtime (the containers) and gateway (the routes)."""
