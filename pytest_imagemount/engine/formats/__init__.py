"""Image formats: which one a file's content is, and what its header says."""
