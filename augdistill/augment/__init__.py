"""Views: how an augmented copy of a batch is made."""
