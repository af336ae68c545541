"""Terms, reweighting and the one masked mean."""
