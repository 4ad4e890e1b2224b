"""Checks of an image that are written in YAML: files named ``*.imagecheck.yaml``, collected as tests."""
