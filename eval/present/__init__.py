"""What a person sees of results: pictures, films, tables, the page."""
