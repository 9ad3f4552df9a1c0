"""What is recorded and told, as values and as text. Knows nothing of files, clocks or code that waits."""
