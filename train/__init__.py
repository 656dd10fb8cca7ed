"""Phase 2: training from caches, without any teacher. Start at ``run.py``.

Nothing is imported here: processes that only read batches load this package too.
"""
