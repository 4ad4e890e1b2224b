"""Mounting proper: image to block device to file system and back. Knows nothing of pytest or of the helper."""
