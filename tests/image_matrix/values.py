"""The five things by which images differ, each with its values: the rows and columns of the matrix."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Value:
    """One value of one dimension.

    :param name: as in the name of a cell
    :param title: for people, Markdown
    :param needs: the capabilities that it takes, see ``imagemount doctor``
    :param in_lab: whether there are kernels that serve every other value, and not this one
    """

    name: str
    title: str
    needs: tuple[str, ...] = ()
    in_lab: bool = False


# By FUSE or by NBD; the lab has both.
_DAEMON = ("qemu", "fuse")
_QEMU = (*_DAEMON, "qemu-img")

FORMATS = (
    Value("raw", "raw"),
    Value("qcow2", "qcow2", _QEMU),
    Value("qcow", "qcow", _QEMU),
    Value("qed", "qed", _QEMU),
    Value("vmdk", "vmdk", _QEMU),
    Value("vdi", "vdi", _QEMU),
    Value("vpc", "vhd (`vpc`)", _QEMU),
    Value("vhdx", "vhdx", _QEMU),
    Value("parallels", "parallels", _QEMU),
    Value("dmg", "dmg", _DAEMON),
    Value("bochs", "bochs", _DAEMON),
    Value("cloop", "cloop", _DAEMON),
    Value("raw.gz", "raw, gzip"),
    Value("raw.xz", "raw, xz"),
    Value("raw.zst", "raw, zstd", ("zstd",)),
    Value("raw.bz2", "raw, bzip2"),
    Value("raw.lz4", "raw, lz4", ("lz4",)),
    Value("raw.001", "raw, split"),
)
TABLES = (
    Value("none", "no table"),
    Value("mbr", "MBR"),
    Value("mbr-logical", "MBR, logical"),
    Value("gpt", "GPT"),
    Value("gpt-4096", "GPT, 4096-byte sectors"),
    Value("apple", "Apple"),
    Value("bsd", "BSD"),
    Value("sun", "Sun"),
)
FILESYSTEMS = (
    Value("ext2", "ext2", ("ext4", "mke2fs", "debugfs")),
    Value("ext4", "ext4", ("ext4", "mke2fs", "debugfs")),
    Value("xfs", "xfs", ("xfs", "mkfs.xfs")),
    Value("btrfs", "btrfs", ("btrfs", "mkfs.btrfs")),
    Value("vfat", "vfat", ("vfat", "mkfs.vfat", "mtools"), in_lab=True),
    Value("squashfs", "squashfs", ("squashfs", "mksquashfs")),
    Value("erofs", "erofs", ("erofs", "mkfs.erofs")),
    Value("iso9660", "iso9660", ("iso9660",), in_lab=True),
)
VOLUMES = (
    Value("none", "no volume"),
    Value("luks1", "LUKS 1", ("device-mapper", "cryptsetup"), in_lab=True),
    Value("luks2", "LUKS 2", ("device-mapper", "cryptsetup"), in_lab=True),
    Value("lvm", "LVM", ("device-mapper", "lvm"), in_lab=True),
    Value("raid1", "RAID 1", ("md", "mdadm"), in_lab=True),
    Value("verity", "dm-verity", ("device-mapper", "veritysetup"), in_lab=True),
    Value("subvolume", "btrfs subvolume", ("btrfs", "mkfs.btrfs")),
)
MODES = (
    Value("ro", "`ro`"),
    Value("overlay", "`overlay`", _DAEMON),
    Value("rw", "`rw`"),
)

DIMENSIONS = {"format": FORMATS, "table": TABLES, "filesystem": FILESYSTEMS, "volume": VOLUMES, "mode": MODES}
"""Every dimension, in the order of a cell's name."""
