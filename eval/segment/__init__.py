"""Linear segmentation of the current and of future frames: features taken once, heads trained on them."""
