"""Networks: T5 layers and EncT5, as flax linen modules with T5X names."""
