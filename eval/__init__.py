"""Evaluation by the literature's protocols, for any encoder."""
