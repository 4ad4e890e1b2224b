"""Builds output/cloud.qcow2: what a cloud image has around its packages."""

from pathlib import Path

from pytest_imagemount import Directory, File, Partition, Symlink, build_image

OUTPUT = Path(__file__).parent / "output"
ROOT_UUID = "2d9a3c70-6a4b-4f0e-9c11-7f6c1f0a5b42"

CLOUD_CFG = """\
datasource_list: [NoCloud, ConfigDrive, OpenStack, Ec2, None]
disable_root: true
ssh_pwauth: false
growpart: {mode: auto, devices: ["/"]}
system_info:
  default_user: {name: cloud, lock_passwd: true, sudo: "ALL=(ALL) NOPASSWD:ALL"}
"""
FSTAB = f"""\
UUID={ROOT_UUID} / ext4 defaults,x-systemd.growfs 0 1
LABEL=UEFI /boot/efi vfat umask=0077 0 1
"""
GRUB_CFG = f"""\
set timeout=0
menuentry 'Example Linux' {{
    linux /boot/vmlinuz-6.12.9 root=UUID={ROOT_UUID} ro console=tty0 console=ttyS0,115200
    initrd /boot/initrd.img-6.12.9
}}
"""
CLOUD_INIT_UNIT = """\
[Unit]
Description=cloud-init
[Service]
Type=oneshot
ExecStart=/usr/bin/cloud-init init
[Install]
WantedBy=multi-user.target
"""


def system():
    """The tree of the root partition."""
    return {
        "boot/grub/grub.cfg": GRUB_CFG,
        "boot/vmlinuz-6.12.9": bytes(4096),
        "boot/initrd.img-6.12.9": bytes(4096),
        "boot/efi": Directory(),
        "etc/cloud/cloud.cfg": CLOUD_CFG,
        "etc/cloud/cloud.cfg.d/90_dpkg.cfg": "# written by the package\n",
        "etc/fstab": FSTAB,
        "etc/machine-id": "",
        "etc/os-release": 'ID=example\nVERSION_ID="1"\nPRETTY_NAME="Example Linux 1 (Cloud)"\n',
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nsyslog:x:101:101::/var/log:/usr/sbin/nologin\n",
        "etc/shadow": File("root:!*::0:99999:7:::\nsyslog:!*::::::\n", mode=0o640, uid=0, gid=42),
        "etc/group": "root:x:0:\nshadow:x:42:\nsyslog:x:101:\n",
        "etc/resolv.conf": Symlink("../run/systemd/resolve/stub-resolv.conf"),
        "etc/systemd/system/multi-user.target.wants/cloud-init.service": Symlink(
            "/usr/lib/systemd/system/cloud-init.service"
        ),
        "usr/lib/systemd/system/cloud-init.service": CLOUD_INIT_UNIT,
        "usr/lib/systemd/system/multi-user.target": "[Unit]\n",
        "var/lib/cloud/seed/nocloud": Directory(),
        "var/log/journal": Directory(mode=0o2755),
    }


def build(folder):
    """The image."""
    folder.mkdir(exist_ok=True)
    build_image(
        folder / "cloud.qcow2",
        format="qcow2",
        table="gpt",
        partitions=[
            Partition(size="1M", type="bios-boot", name="bios"),
            Partition(
                fstype="vfat",
                size="40M",
                type="esp",
                name="esp",
                label="UEFI",
                content={
                    "EFI/BOOT/BOOTX64.EFI": b"MZ" + bytes(510),
                    "EFI/example/grub.cfg": "configfile /boot/grub/grub.cfg\n",
                },
            ),
            Partition(
                fstype="ext4",
                size="48M",
                type="root-x86-64",
                name="root",
                label="cloudimg-rootfs",
                fs_uuid=ROOT_UUID,
                content=system(),
            ),
        ],
    )


if __name__ == "__main__":
    build(OUTPUT)
