"""How good a model is: metrics, predictions, agreement, calibration."""
