from __future__ import annotations

import pytest

from pytest_imagemount.contents.fstab import FstabEntry
from pytest_imagemount.system_plan import DISCOVERED, Skipped, Submount, plan_system, selector

ALL_FOLDERS = {"/usr", "/home", "/srv", "/var", "/var/tmp", "/boot", "/efi"}


def entry(source: str, target: str, fstype: str = "ext4", options: str = "defaults") -> FstabEntry:
    return FstabEntry(source, target, fstype, tuple(options.split(",")), 0, 0)


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("UUID=ab-1", "UUID=ab-1"),
        ('LABEL="my data"', "LABEL=my data"),
        ("PARTLABEL='my data'", "PARTLABEL=my data"),
        ("LABEL='94", "LABEL='94"),
        ("/dev/disk/by-partlabel/my\\x20data", "PARTLABEL=my data"),
        ("/dev/disk/by-uuid/AB12-34CD", "UUID=AB12-34CD"),
        ("/dev/mapper/vg--one-root", "lv:vg-one/root"),
        ("/dev/disk/by-id/dm-name-vg--one-root", "lv:vg-one/root"),
        ("/dev/vg/root", "lv:vg/root"),
        ("/dev/sda3", 3),
        ("/dev/vda12", 12),
        ("/dev/nvme0n1p2", 2),
        ("/dev/mmcblk0p1", 1),
        ("/dev/sda", None),
        ("/dev/md/data", None),
        ("tmpfs", None),
        ("server:/export", None),
        ("//server/share", None),
    ],
)
def test_a_source_of_fstab_says_which_partition(source: str, wanted: int | str | None) -> None:
    assert selector(source) == wanted


def test_fstab_decides_in_order_of_depth() -> None:
    entries = [
        entry("UUID=1", "/"),
        entry("UUID=2", "/boot/efi", "vfat", "umask=0077,shortname=winnt"),
        entry("UUID=3", "/boot"),
        entry("UUID=4", "/data//x/", options="nofail,x-systemd.automount,errors=remount-ro"),
        entry("UUID=1", "/home", "btrfs", "subvol=/@home,compress=zstd"),
    ]
    plan = plan_system(entries, {}, {}, root=1, folders=ALL_FOLDERS)
    assert plan.submounts == (
        Submount("/boot", "UUID=3", "ext4"),
        Submount("/home", "UUID=1", "btrfs", subvolume="@home"),
        Submount("/boot/efi", "UUID=2", "vfat", ("umask=0077", "shortname=winnt")),
        Submount("/data/x", "UUID=4", "ext4", optional=True),
    )
    assert plan.skipped == ()


def test_a_subvolume_is_named_by_path_or_by_number() -> None:
    entries = [
        entry("UUID=1", "/home", "btrfs", "subvolid=257,compress=zstd"),
        entry("UUID=1", "/srv", "btrfs", "subvolid=258,subvol=/@srv"),
    ]
    plan = plan_system(entries, {}, {}, root=1, folders=ALL_FOLDERS)
    assert plan.submounts == (
        Submount("/home", "UUID=1", "btrfs", ("subvolid=257",)),
        Submount("/srv", "UUID=1", "btrfs", subvolume="@srv"),
    )


@pytest.mark.parametrize(
    ("root", "other", "same"),
    [
        ("/dev/sda2", "/dev/sdb1", "/dev/sda1"),
        ("/dev/sdb2", "/dev/sda1", "/dev/sdb1"),
        ("/dev/nvme0n1p2", "/dev/nvme1n1p1", "/dev/nvme0n1p1"),
        ("/dev/mmcblk1p2", "/dev/mmcblk0p1", "/dev/mmcblk1p1"),
        ("UUID=1", "/dev/sdb1", "/dev/sda1"),
        ("UUID=1", "/dev/xvdf1", "/dev/xvda1"),
        ("UUID=1", "/dev/nvme0n2p1", "/dev/mmcblk1p1"),
    ],
)
def test_a_partition_of_another_disk_is_none_of_the_image(root: str, other: str, same: str) -> None:
    entries = [entry(root, "/"), entry(other, "/data"), entry(same, "/boot")]
    plan = plan_system(entries, {"root": 2, "home": 1}, {}, root=2, folders=ALL_FOLDERS)
    assert [(one.target, one.partition) for one in plan.submounts] == [("/boot", 1)]
    assert plan.skipped == (Skipped(other, "/data", "it is on another disk"),)
    plan = plan_system(entries[:2], {"root": 2, "home": 1}, {}, root=2, folders=ALL_FOLDERS)
    assert [(one.target, one.partition) for one in plan.submounts] == [("/home", 1)]


@pytest.mark.parametrize("device", ["/dev/vda", "/dev/md0", "/dev/mapper/cr_root", "/dev/mapper/cr-root"])
def test_what_has_the_source_of_the_root_is_on_the_root_s_file_system(device: str) -> None:
    entries = [entry(device, "/", "btrfs", "subvol=@"), entry(device, "/home", "btrfs", "subvol=@home")]
    plan = plan_system(entries, {}, {}, root=1, folders=ALL_FOLDERS, encrypted={"/dev/mapper/cr-root"})
    assert [(one.target, one.subvolume, one.of_root) for one in plan.submounts] == [("/home", "@home", True)]


def test_what_crypttab_makes_is_no_logical_volume() -> None:
    entries = [entry("/dev/mapper/vg-root", "/"), entry("/dev/mapper/my-data", "/data")]
    plan = plan_system(entries, {}, {}, root=1, folders=ALL_FOLDERS, encrypted={"/dev/mapper/my-data"})
    assert plan.submounts == ()
    reason = "it is encrypted, and /etc/crypttab is not followed"
    assert plan.skipped == (Skipped("/dev/mapper/my-data", "/data", reason),)


def test_of_two_lines_with_one_mount_point_the_first_counts() -> None:
    entries = [entry("UUID=2", "/boot"), entry("UUID=3", "//boot/"), entry("UUID=4", "/srv")]
    plan = plan_system(entries, {}, {}, root=1, folders=ALL_FOLDERS)
    assert [(one.target, one.partition) for one in plan.submounts] == [("/boot", "UUID=2"), ("/srv", "UUID=4")]
    assert plan.skipped == (Skipped("UUID=3", "//boot/", "a line before it has the same mount point"),)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (entry("UUID=5", "none", "swap"), "swap"),
        (entry("/swapfile", "swap", "swap"), "swap"),
        (entry("UUID=5", "/mnt", options="noauto"), "noauto"),
        (entry("server:/x", "/mnt", "nfs"), "network"),
        (entry("UUID=5", "/mnt", options="_netdev"), "network"),
        (entry("tmpfs", "/tmp", "tmpfs"), "no file system of the image"),
        (entry("/srv/a", "/srv/b", "none", "bind"), "no file system of the image"),
        (entry("/srv/a", "/srv/b", "ext4", "bind"), "a bind mount"),
        (entry("UUID=5", "relative"), "its mount point is not an absolute path without '..'"),
        (entry("UUID=5", "/a/../../etc"), "its mount point is not an absolute path without '..'"),
        (entry("/dev/md/data", "/mnt"), "which partition of the image this device is cannot be told"),
    ],
)
def test_what_is_not_mounted_is_told_with_the_reason(line: FstabEntry, reason: str) -> None:
    plan = plan_system([line], {}, {}, root=1, folders=ALL_FOLDERS)
    assert plan.submounts == ()
    assert plan.skipped == (Skipped(line.source, line.target, reason),)


def test_partition_types_place_what_fstab_does_not_mention() -> None:
    roles = {"root": 1, "home": 2, "srv": 3, "esp": 4, "xbootldr": 5, "swap": 6, "var": 7}
    plan = plan_system([entry("PARTUUID=Ab", "/home")], roles, {2: ["PARTUUID=aB"]}, root=1, folders=ALL_FOLDERS)
    assert [(one.target, one.partition, one.origin) for one in plan.submounts] == [
        ("/home", "PARTUUID=Ab", "fstab"),
        ("/srv", 3, DISCOVERED),
        ("/var", 7, DISCOVERED),
        ("/boot", 5, DISCOVERED),
        ("/efi", 4, DISCOVERED),
    ]


def test_a_partition_that_fstab_puts_elsewhere_is_not_mounted_again() -> None:
    entries = [entry("UUID=AA-BB", "/boot/firmware", "vfat")]
    plan = plan_system(entries, {"esp": 1}, {1: ["UUID=aa-bb"]}, root=2, folders=ALL_FOLDERS)
    assert [one.target for one in plan.submounts] == ["/boot/firmware"]


@pytest.mark.parametrize(
    ("folders", "taken", "place"),
    [
        ({"/efi", "/boot"}, None, "/efi"),
        ({"/boot"}, None, "/boot"),
        ({"/boot"}, "/boot", None),
        (set(), None, None),
    ],
)
def test_the_esp_goes_to_efi_else_to_boot(folders: set[str], taken: str | None, place: str | None) -> None:
    entries = [entry("UUID=9", taken)] if taken else []
    plan = plan_system(entries, {"esp": 4}, {}, root=1, folders=folders)
    assert [one.target for one in plan.submounts if one.origin == DISCOVERED] == ([place] if place else [])


def test_a_place_without_a_folder_is_left_out() -> None:
    assert plan_system([], {"home": 2}, {}, root=1, folders={"/srv"}).submounts == ()
