"""The command line: the only door to gin; one file per sub-command."""
