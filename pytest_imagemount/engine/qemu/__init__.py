"""One qemu-storage-daemon, driven by QMP."""
