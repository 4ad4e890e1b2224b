"""The image matrix: every format, table, file system, volume and mode, each with every other at least once.

``./tests/images`` runs it. Each cell is an image that is built, mounted by the fixture, read, and where its mode says
so, written to.
"""
