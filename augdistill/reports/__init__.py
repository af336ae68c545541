"""What a run leaves behind: its directory, results, tables, progress."""
