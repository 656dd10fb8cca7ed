"""One module an evaluation: data, encoder and metric brought together into a result."""
