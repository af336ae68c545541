"""The pure step, the state, the loop, the mesh and the optimizers."""
