"""Networks, as flax linen modules with the axis names of T5X."""
