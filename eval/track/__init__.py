"""Pooled regions followed by their features: proposals, pooling, tracking."""
