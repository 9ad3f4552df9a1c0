"""The log's file: its schema, who reads it, and the one thread that writes it. Decides nothing."""
