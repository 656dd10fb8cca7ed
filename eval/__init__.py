"""Evaluation by the literature's protocols. Not part of this release: it comes after training."""
