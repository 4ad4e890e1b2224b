"""Which superblocks, by libblkid's names, are those of volumes that we open."""

LUKS = "crypto_LUKS"
LVM = "LVM2_member"
RAID = "linux_raid_member"
VERITY_HASHES = "DM_verity_hash"

VOLUMES = frozenset({LUKS, LVM, RAID})
"""What another block device, and in the end a file system, is made of; it says so itself."""
