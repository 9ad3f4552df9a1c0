"""Numbered migrations of the log's schema, one .sql file each; their number is the file's `user_version` afterwards."""
