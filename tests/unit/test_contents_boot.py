"""Boot loaders, their entries, and the kernel's command line."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_imagemount.contents.boot_entry import BootEntry, Bootloader
from pytest_imagemount.contents.bootloader import read_bootloader, read_kernel_cmdline
from pytest_imagemount.errors import FactsMissing, ImageMountError

from .system_tree import Link, make_tree

if TYPE_CHECKING:
    from pathlib import Path

Files = dict[str, str | bytes | Link]

GRUB = """\
set default="0"
set root='hd0,gpt2'
set kernelopts="root=/dev/vda2 quiet"
if [ x = y ] ; then set either=1 ; fi
set either=2
set either=3
function load_video { insmod all_video }
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple' {
\tlinux\t/vmlinuz-6.1 root=UUID=abc  ro \\
 'a b=c' # comment
\tinitrd\t/ucode.img /initrd.img-6.1
}
submenu "Advanced" {
  menuentry "With ${kernelopts}" { # x
    linuxefi /vmlinuz-5 $kernelopts $either ${unknown}
  }
}
menuentry 'UEFI Firmware Settings' {
  fwsetup
}
"""
BLS = """\
# comment
title Fedora
version 6.9
linux /vmlinuz-6.9
initrd /initramfs-6.9.img $tuned
options $kernelopts  rhgb
options b
"""
PI = "# c\narm_64bit=1\nkernel=vmlinuz\n[pi4]\nkernel=no\n[all]\ninitramfs initrd.img followkernel\n"


def pe(sections: dict[str, bytes]) -> bytes:
    """A PE file with these sections."""
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x80)
    head = (
        head.ljust(0x80, b"\0") + b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, len(sections), 0, 0, 0, 16, 0) + bytes(16)
    )
    place = len(head) + 40 * len(sections)
    table, data = b"", b""
    for name, content in sections.items():
        stored = content.ljust(-(-len(content) // 512) * 512, b"\0")
        table += struct.pack("<8sIIII", name.encode(), len(content), 0, len(stored), place + len(data)).ljust(40, b"\0")
        data += stored
    return head + table + data


@pytest.mark.parametrize(
    "place", ["boot/grub/grub.cfg", "boot/grub2/grub.cfg", "grub/grub.cfg", "boot/efi/EFI/x/grub.cfg"]
)
def test_entries_of_grub(place: str, tmp_path: Path) -> None:
    loader = read_bootloader(make_tree(tmp_path, {place: GRUB}))
    debian = BootEntry("Debian GNU/Linux", "/vmlinuz-6.1", ("/ucode.img", "/initrd.img-6.1"), "root=UUID=abc ro a b=c")
    advanced = BootEntry("With root=/dev/vda2 quiet", "/vmlinuz-5", (), "root=/dev/vda2 quiet $either ${unknown}")
    firmware = BootEntry("UEFI Firmware Settings", None, (), "")
    assert loader == Bootloader("grub", f"/{place}", (debian, advanced, firmware))


def test_a_grub_that_only_loads_another_is_passed_over(tmp_path: Path) -> None:
    files: Files = {"boot/efi/EFI/a/grub.cfg": "search x\nconfigfile $prefix/grub.cfg\n", "boot/grub/grub.cfg": GRUB}
    assert read_bootloader(make_tree(tmp_path, files)).path == "/boot/grub/grub.cfg"
    del files["boot/grub/grub.cfg"]
    alone = read_bootloader(make_tree(tmp_path / "b", files))
    assert (alone.kind, alone.path, alone.entries) == ("grub", "/boot/efi/EFI/a/grub.cfg", ())


def test_grub_with_entries_of_the_boot_loader_specification(tmp_path: Path) -> None:
    files: Files = {
        "boot/grub2/grub.cfg": "set x=y\nblscfg\n",
        "boot/grub2/grubenv": "# GRUB Environment Block\nkernelopts=root=UUID=1 ro\n#####\n",
        "boot/loader/entries/m-6.9.conf": BLS,
        "boot/loader/entries/m-6.10.conf": BLS.replace("6.9", "6.10"),
    }
    loader = read_bootloader(make_tree(tmp_path, files))
    assert loader.kind == "grub"
    assert loader.entries[0] == BootEntry(
        "Fedora", "/vmlinuz-6.10", ("/initramfs-6.10.img $tuned",), "root=UUID=1 ro rhgb b"
    )
    assert loader.entries[1].linux == "/vmlinuz-6.9"


def test_entries_of_systemd_boot_in_the_order_of_the_menu(tmp_path: Path) -> None:
    entry = "title {0}\nversion {1}\nsort-key {2}\nlinux /{0}\n"
    files: Files = {
        "efi/loader/loader.conf": "timeout 3\n#default no\ndefault z*\n",
        "efi/loader/entries/a.conf": entry.format("A", "6.9", "debian"),
        "efi/loader/entries/b.conf": entry.format("B", "6.10", "debian"),
        "efi/loader/entries/c.conf": entry.format("C", "1", "arch"),
        "efi/loader/entries/d-9.conf": "linux /D9\n",
        "efi/loader/entries/d-10.conf": "linux /D10\n",
        "efi/loader/entries/z.conf": "title Z\nlinux /Z\ninitrd /one\ninitrd /two\noptions  a   b\n",
        "efi/loader/entries/README": "title no\n",
    }
    loader = read_bootloader(make_tree(tmp_path, files))
    assert (loader.kind, loader.path) == ("systemd-boot", "/efi")
    assert [each.title for each in loader.entries] == ["Z", "C", "B", "A", "d-10", "d-9"]
    assert loader.entries[0] == BootEntry("Z", "/Z", ("/one", "/two"), "a b")


def test_a_unified_kernel_image_is_an_entry(tmp_path: Path) -> None:
    image = pe({".text": b"x" * 700, ".osrel": b'PRETTY_NAME="Probe 1"\n', ".cmdline": b"root=x  ro\n\0\0"})
    files: Files = {"boot/EFI/Linux/probe-1.efi": image, "boot/EFI/Linux/broken.efi": b"MZ", "boot/EFI/Linux/x": ""}
    loader = read_bootloader(make_tree(tmp_path, files))
    assert loader == Bootloader(
        "systemd-boot",
        "/boot",
        (
            BootEntry("Probe 1", "/boot/EFI/Linux/probe-1.efi", (), "root=x ro"),
            BootEntry("broken", "/boot/EFI/Linux/broken.efi", (), ""),
        ),
    )


def test_systemd_boot_without_entries(tmp_path: Path) -> None:
    loader = read_bootloader(make_tree(tmp_path, {"EFI/systemd/systemd-bootx64.efi": b"MZ"}))
    assert loader == Bootloader("systemd-boot", "/", ())


@pytest.mark.parametrize(
    "place", ["boot/extlinux/extlinux.conf", "extlinux/extlinux.conf", "boot/syslinux/syslinux.cfg"]
)
def test_labels_of_extlinux(place: str, tmp_path: Path) -> None:
    text = (
        "# c\nDEFAULT two\nTIMEOUT 3\nLABEL one\n  MENU LABEL ^First\n  LINUX /one\n  INITRD /a,/b\n  APPEND x  y\n"
        "label two\n\tkernel ../two\n\tappend initrd=/c.img root=z\n"
    )
    loader = read_bootloader(make_tree(tmp_path, {place: text}))
    two = BootEntry("two", "../two", ("/c.img",), "initrd=/c.img root=z")
    assert loader == Bootloader("extlinux", f"/{place}", (two, BootEntry("First", "/one", ("/a", "/b"), "x y")))


@pytest.mark.parametrize("folder", ["boot/firmware/", "boot/", ""])
def test_the_firmware_of_the_raspberry_pi(folder: str, tmp_path: Path) -> None:
    files: Files = {
        f"{folder}config.txt": PI,
        f"{folder}cmdline.txt": "console=serial0  root=PARTUUID=1\n",
    }
    tree = make_tree(tmp_path, files)
    entry = BootEntry("Raspberry Pi", "vmlinuz", ("initrd.img",), "console=serial0 root=PARTUUID=1")
    assert read_bootloader(tree) == Bootloader("raspberrypi", f"/{folder}config.txt", (entry,))
    assert read_kernel_cmdline(tree) == "console=serial0 root=PARTUUID=1"


def test_a_config_txt_without_firmware_is_no_boot_loader(tmp_path: Path) -> None:
    with pytest.raises(FactsMissing, match="has no boot loader") as caught:
        read_bootloader(make_tree(tmp_path, {"config.txt": "x=y\n"}))
    assert "grub/grub.cfg in /boot, /efi, /boot/efi, /boot/firmware, /" in caught.value.looked


def test_the_command_line_is_what_the_boot_loader_gives_before_what_it_is_made_from(tmp_path: Path) -> None:
    files: Files = {
        "cmdline.txt": "pi\n",
        "etc/default/grub": "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet  splash\"\nGRUB_CMDLINE_LINUX='net.ifnames=0'\n",
        "usr/lib/kernel/cmdline": "vendor\n",
        "etc/kernel/cmdline": "etc  1\n2\n",
        "boot/loader/loader.conf": "",
        "boot/grub/grub.cfg": GRUB,
    }
    expected = ["pi", "net.ifnames=0 quiet splash", "vendor", "etc 1 2", "etc 1 2", "root=UUID=abc ro a b=c"]
    names = list(files)
    found = [
        read_kernel_cmdline(make_tree(tmp_path / str(count), {name: files[name] for name in names[:count]}))
        for count in range(1, len(names) + 1)
    ]
    assert found == expected


def test_the_settings_of_grub_d_come_after_those_of_grub(tmp_path: Path) -> None:
    files: Files = {
        "etc/default/grub": "GRUB_CMDLINE_LINUX=a\n",
        "etc/default/grub.d/50-cloud.cfg": "GRUB_CMDLINE_LINUX=b\n",
        "etc/default/grub.d/README": "GRUB_CMDLINE_LINUX=c\n",
    }
    assert read_kernel_cmdline(make_tree(tmp_path, files)) == "b"


def test_no_command_line_is_an_error_that_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FactsMissing, match="has no kernel command line") as caught:
        read_kernel_cmdline(make_tree(tmp_path, {"etc/": ""}))
    assert {"/etc/kernel/cmdline", "/etc/default/grub"} <= set(caught.value.looked)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(
        ["boot/grub/grub.cfg", "boot/loader/entries/a.conf", "extlinux.conf", "config.txt", "EFI/Linux/a.efi"]
    ),
    data=st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.sampled_from([b"menuentry", b" ", b"'", b'"', b"linux", b"\n", b"{", b"$x", b"label", b"\\", b"[", b"="])
        ).map(b"".join),
        st.builds(
            lambda count, junk: pe({".cmdline": b"x"})[:count] + junk, st.integers(0, 800), st.binary(max_size=9)
        ),
    ),
)
def test_any_configuration_is_read_or_is_an_error_of_ours(name: str, data: bytes, tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {name: data, "cmdline.txt": "x"})
    try:
        with suppress(ImageMountError):
            read_bootloader(tree)
        with suppress(ImageMountError):
            read_kernel_cmdline(tree)
    finally:
        (tmp_path / name).unlink()
