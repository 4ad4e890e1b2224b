"""Partition tables: read, shown, and chosen from."""
