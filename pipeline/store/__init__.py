"""The cache itself: layout, writing, reading, verification. Knows nothing of Ray, decoders or teachers."""

from frame.pipeline.store.columns import Column
from frame.pipeline.store.files import CacheError
from frame.pipeline.store.layout import CacheMeta
from frame.pipeline.store.reader import Cache, open_cache, reopen

__all__ = ["Cache", "CacheError", "CacheMeta", "Column", "open_cache", "reopen"]
