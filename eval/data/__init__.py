"""The datasets' own layouts: what is where, and what is missing."""
