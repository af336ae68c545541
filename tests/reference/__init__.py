"""Float64 NumPy oracles, written from the papers, importing nothing of ours."""
