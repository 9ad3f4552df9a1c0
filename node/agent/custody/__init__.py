"""Custody of tenants' data: session, lease, claim, restore, confirm, release. Starts no process, knows no engine."""
