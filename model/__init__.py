"""The FRAME model. Not part of this release: it reads the caches that ``frame-cache`` builds, and comes next."""
