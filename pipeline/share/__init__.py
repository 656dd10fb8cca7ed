"""Caches that are pushed to another place and pulled from it: a dataset repository on the model hub, an object store,
or whatever fsspec reaches. Every byte is compared with its receipt on the way out and on the way in."""
