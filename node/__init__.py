"""One machine: the bucket both sides speak, the agent, the workflow library and the worker that serves it."""
