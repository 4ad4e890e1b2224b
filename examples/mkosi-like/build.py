"""Builds output/image.raw and output/image.manifest, which stand for those of `mkosi build`."""

import json
from pathlib import Path

from pytest_imagemount import Directory, File, Partition, Symlink, build_image

OUTPUT = Path(__file__).parent / "output"
KERNEL = "6.12.9-amd64"
PACKAGES = {"base-files": "13.6", "demo": "1.4.2", "libc6": "2.41-6", "systemd": "257.4-3"}

UNIT = """\
[Unit]
Description=Demo service
[Service]
ExecStart=/usr/bin/demo
User=demo
[Install]
WantedBy=multi-user.target
"""


def dpkg_status(packages):
    """What dpkg keeps of the installed packages."""
    return "\n".join(
        f"Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n"
        for name, version in packages.items()
    )


def system():
    """The tree of the root partition."""
    return {
        "etc/hostname": "demo\n",
        "etc/machine-id": "uninitialized\n",
        "etc/os-release": Symlink("../usr/lib/os-release"),
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\ndemo:x:900:900::/var/lib/demo:/usr/sbin/nologin\n",
        "etc/shadow": File("root:!*::0:99999:7:::\ndemo:!*::::::\n", mode=0o640, uid=0, gid=42),
        "etc/group": "root:x:0:\nshadow:x:42:\ndemo:x:900:\n",
        "etc/systemd/system/multi-user.target.wants/demo.service": Symlink("/usr/lib/systemd/system/demo.service"),
        "usr/bin/demo": File(b"#!/bin/sh\nexec sleep infinity\n", mode=0o755, uid=0, gid=0),
        "usr/lib/os-release": 'ID=demo\nVERSION_ID=1.4\nNAME="Demo OS"\nPRETTY_NAME="Demo OS 1.4"\n',
        "usr/lib/systemd/system/demo.service": UNIT,
        "usr/lib/systemd/system/multi-user.target": "[Unit]\nDescription=Multi-User System\n",
        "usr/lib/systemd/system/debug-shell.service": UNIT.replace("demo", "debug-shell"),
        "usr/lib/systemd/system-preset/10-demo.preset": "enable demo.service\ndisable *\n",
        f"usr/lib/modules/{KERNEL}/modules.dep": "",
        "var/lib/demo": Directory(mode=0o750, uid=900, gid=900),
        "var/lib/demo/state": File("", mode=0o600, uid=900, gid=900),
        "var/lib/dpkg/status": dpkg_status(PACKAGES),
    }


def esp():
    """The tree of the EFI system partition."""
    entry = f"title Demo OS\nlinux /demo/{KERNEL}/linux\ninitrd /demo/{KERNEL}/initrd\noptions rw quiet\n"
    return {
        "EFI/BOOT/BOOTX64.EFI": b"MZ" + bytes(510),
        "loader/loader.conf": "timeout 0\n",
        "loader/entries/demo.conf": entry,
        f"demo/{KERNEL}/linux": bytes(4096),
        f"demo/{KERNEL}/initrd": bytes(4096),
    }


def build(folder):
    """The image and its manifest."""
    folder.mkdir(exist_ok=True)
    build_image(
        folder / "image.raw",
        table="gpt",
        partitions=[
            Partition(fstype="vfat", size="40M", type="esp", name="esp", label="ESP", content=esp()),
            Partition(
                fstype="ext4", size="32M", type="root-x86-64", name="root-x86-64", label="root", content=system()
            ),
        ],
    )
    listed = [{"type": "deb", "name": n, "version": v, "architecture": "amd64"} for n, v in PACKAGES.items()]
    (folder / "image.manifest").write_text(json.dumps({"manifest_version": 1, "packages": listed}, indent=2))


if __name__ == "__main__":
    build(OUTPUT)
