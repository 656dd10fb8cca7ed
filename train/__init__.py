"""Training from a cache. Not part of this release: it comes next, on the reader in ``frame.pipeline.store``."""
