"""The fault matrix: everything that can end a test run, at every moment of a mount, and what is left afterwards.

``./tests/faults`` runs it. Each cell is an event at a moment, with one backend, with or without pytest-xdist: a real
pytest run, as a process of its own, on real images.
"""
