"""Builds output/sdcard.raw: what pi-gen leaves, without the packages."""

import struct
from pathlib import Path

from pytest_imagemount import Directory, File, Partition, Symlink, build_image

OUTPUT = Path(__file__).parent / "output"
SIGNATURE = "5c3b70a1"
KERNEL = "6.12.25+rpt-rpi-v8"

CONFIG = """\
arm_64bit=1
kernel=kernel8.img
dtparam=audio=on
[pi4]
dtoverlay=vc4-kms-v3d
"""
FSTAB = f"""\
proc                  /proc           proc  defaults          0 0
PARTUUID={SIGNATURE}-01  /boot/firmware  vfat  defaults          0 2
PARTUUID={SIGNATURE}-02  /               ext4  defaults,noatime  0 1
"""


def arm64_program():
    """The header of an ELF program for arm64, and nothing behind it."""
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    return identity + struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, 0, 64, 0, 0, 64, 56, 0, 64, 0, 0)


def firmware():
    """The tree of the first partition."""
    return {
        "config.txt": CONFIG,
        "cmdline.txt": f"console=serial0,115200 console=tty1 root=PARTUUID={SIGNATURE}-02 rootfstype=ext4 rootwait\n",
        "kernel8.img": bytes(4096),
        "start4.elf": bytes(512),
        "fixup4.dat": bytes(512),
        "bcm2711-rpi-4-b.dtb": b"\xd0\x0d\xfe\xed" + bytes(60),
        "overlays/vc4-kms-v3d.dtbo": b"\xd0\x0d\xfe\xed" + bytes(60),
    }


def system():
    """The tree of the root partition."""
    return {
        "bin": Symlink("usr/bin"),
        "usr/bin/sh": File(arm64_program(), mode=0o755, uid=0, gid=0),
        "boot/firmware": Directory(),
        "etc/fstab": FSTAB,
        "etc/hostname": "raspberrypi\n",
        "etc/machine-id": "",
        "etc/os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\npi:x:1000:1000:,,,:/home/pi:/bin/sh\n",
        "etc/shadow": File("root:*:19000:0:99999:7:::\npi:!:19000:0:99999:7:::\n", mode=0o640, uid=0, gid=42),
        "etc/group": "root:x:0:\nshadow:x:42:\ngpio:x:997:pi\npi:x:1000:\n",
        "etc/ssh/sshd_config": "PasswordAuthentication no\n",
        "home/pi": Directory(mode=0o700, uid=1000, gid=1000),
        f"usr/lib/modules/{KERNEL}/modules.dep": "",
    }


def build(folder):
    """The image of the card."""
    folder.mkdir(exist_ok=True)
    build_image(
        folder / "sdcard.raw",
        table="mbr",
        uuid=SIGNATURE,
        partitions=[
            Partition(fstype="vfat", size="40M", type=0x0C, label="bootfs", content=firmware()),
            Partition(fstype="ext4", size="48M", type=0x83, label="rootfs", content=system()),
        ],
    )


if __name__ == "__main__":
    build(OUTPUT)
