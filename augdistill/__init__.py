"""augdistill: distil text encoders, with augmentation that helps."""
