"""Checkpoints: the only door to orbax and to foreign formats."""
