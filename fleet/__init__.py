"""The controller and the command line: where tenants should be. Imports of `node` only `node.bucket` and `node.api`."""
