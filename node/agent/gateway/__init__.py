"""Routes from a tenant's name to its container: HAProxy's configuration and its runtime interface."""
