"""The kernel's NBD devices: leased from a pool, connected, taken down."""
