"""The report: one self-contained HTML page about a cache, with clips that one can scrub through."""

from frame.pipeline.view.page import render_view

__all__ = ["render_view"]
