"""Reference: documents that are generated from the code."""
