"""Names of partition types.

GPT: the Discoverable Partitions Specification's, and the names in use for what it leaves out.
MBR: the codes in use on Linux, as libfdisk lists them, under the same names as their GPT counterparts.
"""

from __future__ import annotations

from .discoverable_types import DISCOVERABLE_TYPES

GPT_TYPES = {
    **DISCOVERABLE_TYPES,
    "21686148-6449-6e6f-744e-656564454649": "bios-boot",
    "e6d6d379-f507-44c2-a23c-238f2a3df928": "lvm",
    "a19d880f-05fc-4d3b-a006-743f0f84911e": "raid",
    "ca7d7ccb-63ed-4c53-861c-1742536059cc": "luks",
    "7ffec5c9-2d00-49b7-8941-3ea10a5586b7": "dm-crypt",
    "9e1a2d38-c612-4316-aa26-8b49521e5a8b": "prep-boot",
    "e3c9e316-0b5c-4db8-817d-f92df00215ae": "microsoft-reserved",
    "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7": "microsoft-basic-data",
    "de94bba4-06d1-4d40-a16a-bfd50179d6ac": "windows-recovery",
    "48465300-0000-11aa-aa11-00306543ecac": "apple-hfs",
    "7c3457ef-0000-11aa-aa11-00306543ecac": "apple-apfs",
    "516e7cb5-6ecf-11d6-8ff8-00022d09712b": "freebsd-swap",
    "516e7cb6-6ecf-11d6-8ff8-00022d09712b": "freebsd-ufs",
    "516e7cba-6ecf-11d6-8ff8-00022d09712b": "freebsd-zfs",
    "6a898cc3-1dd2-11b2-99a6-080020736631": "zfs",
    "fe3a2a5d-4f32-41a7-b725-accc3285a309": "chromeos-kernel",
    "3cb8e202-3b7e-47dd-8a3c-7ff2a13cfcec": "chromeos-root",
}
"""Type GUID, in lower case, to name."""

MBR_TYPES = {
    0x01: "fat12",
    0x04: "fat16-small",
    0x05: "extended",
    0x06: "fat16",
    0x07: "ntfs-or-exfat",
    0x0B: "fat32",
    0x0C: "fat32-lba",
    0x0E: "fat16-lba",
    0x0F: "extended-lba",
    0x11: "hidden-fat12",
    0x14: "hidden-fat16-small",
    0x16: "hidden-fat16",
    0x17: "hidden-ntfs",
    0x1B: "hidden-fat32",
    0x1C: "hidden-fat32-lba",
    0x1E: "hidden-fat16-lba",
    0x27: "windows-recovery",
    0x41: "prep-boot",
    0x63: "hurd",
    0x80: "minix-old",
    0x81: "minix",
    0x82: "swap",
    0x83: "linux",
    0x85: "linux-extended",
    0x88: "linux-plaintext",
    0x8E: "lvm",
    0x9F: "bsd-os",
    0xA5: "freebsd",
    0xA6: "openbsd",
    0xA8: "darwin-ufs",
    0xA9: "netbsd",
    0xAB: "darwin-boot",
    0xAF: "apple-hfs",
    0xBE: "solaris-boot",
    0xBF: "solaris",
    0xDA: "non-fs-data",
    0xEA: "xbootldr",
    0xEB: "beos",
    0xEE: "gpt-protective",
    0xEF: "esp",
    0xFB: "vmware-vmfs",
    0xFD: "raid",
}
"""Type code to name."""
