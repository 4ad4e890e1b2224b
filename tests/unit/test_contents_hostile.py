"""Files of an image that mean harm: no reader hangs, reads this machine's files, or takes memory without bound."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_imagemount.contents.accounts import read_groups, read_users
from pytest_imagemount.contents.bootloader import read_bootloader, read_kernel_cmdline
from pytest_imagemount.contents.cron import read_cron
from pytest_imagemount.contents.fstab import read_fstab
from pytest_imagemount.contents.operating_system import read_os
from pytest_imagemount.contents.packages import read_packages
from pytest_imagemount.contents.services import read_services
from pytest_imagemount.contents.ssh_host_keys import read_ssh_host_keys
from pytest_imagemount.errors import FactsInvalid, FactsMissing, ImageMountError

from .system_tree import make_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_imagemount.image_path import ImagePath

    Reader = Callable[[ImagePath], object]

CANARY = "canary-from-outside"
READ_BY: dict[str, Reader] = {
    "etc/os-release": read_os,
    "etc/machine-id": read_os,
    "etc/hostname": read_os,
    "etc/localtime": read_os,
    "bin/sh": read_os,
    "boot": read_os,
    "usr/lib/modules": read_os,
    "var/lib/dpkg/status": read_packages,
    "var/lib/dpkg/status.d": read_packages,
    "var/lib/dpkg/updates": read_packages,
    "var/lib/rpm/rpmdb.sqlite": read_packages,
    "var/lib/rpm/Packages.db": read_packages,
    "var/lib/rpm/Packages": read_packages,
    "lib/apk/db/installed": read_packages,
    "var/lib/pacman/local": read_packages,
    "etc/passwd": read_users,
    "etc/shadow": read_users,
    "etc/group": read_groups,
    "usr/lib/systemd/system": read_services,
    "usr/lib/systemd/system/a.service": read_services,
    "usr/lib/systemd/system/a.service.d/x.conf": read_services,
    "etc/systemd/system/x.target.wants": read_services,
    "etc/systemd/system-preset/x.preset": read_services,
    "etc/init.d/x": read_services,
    "etc/runlevels": read_services,
    "etc/fstab": read_fstab,
    "etc/crontab": read_cron,
    "etc/cron.d/x": read_cron,
    "etc/cron.daily": read_cron,
    "var/spool/cron/crontabs/x": read_cron,
    "etc/ssh/ssh_host_rsa_key": read_ssh_host_keys,
    "etc/ssh/sshd_config": read_ssh_host_keys,
    "etc/kernel/cmdline": read_kernel_cmdline,
    "etc/default/grub": read_kernel_cmdline,
    "boot/grub/grub.cfg": read_bootloader,
    "boot/loader/entries/x.conf": read_bootloader,
    "boot/EFI/Linux/x.efi": read_bootloader,
    "boot/extlinux/extlinux.conf": read_bootloader,
    "boot/config.txt": read_bootloader,
}
BESIDES: dict[str, str] = {
    "usr/lib/os-release": "ID=probe\n",
    "usr/lib/systemd/system/b.service": "[Install]\nWantedBy=x.target\n",
    "usr/lib/passwd": "root:x:0:0::/:/bin/sh\n",
    "boot/cmdline.txt": "x",
}


def fifo(path: Path, _outside: Path) -> None:
    os.mkfifo(path)


def folder(path: Path, _outside: Path) -> None:
    path.mkdir()


def link_to_itself(path: Path, _outside: Path) -> None:
    path.symlink_to(path.name)


def link_outside(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def link_up_and_out(path: Path, outside: Path) -> None:
    path.symlink_to("../" * 40 + str(outside).lstrip("/"))


def link_to_an_endless_device(path: Path, _outside: Path) -> None:
    path.symlink_to("/dev/zero")


def bytes_of_no_text(path: Path, _outside: Path) -> None:
    path.write_bytes(bytes(range(256)) * 40)


def unreadably_large(path: Path, _outside: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def one_long_line(path: Path, _outside: Path) -> None:
    path.write_bytes(b"A" * 300_000)


THINGS = [
    fifo,
    folder,
    link_to_itself,
    link_outside,
    link_up_and_out,
    link_to_an_endless_device,
    bytes_of_no_text,
    unreadably_large,
    one_long_line,
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: thing.__name__)
@pytest.mark.parametrize("place", READ_BY)
def test_whatever_stands_in_place_of_a_file_is_read_or_is_an_error(
    place: str, thing: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_text(f"{CANARY}:{CANARY}\n")
    tree = make_tree(tmp_path / "root", {name: text for name, text in BESIDES.items() if not name.startswith(place)})
    path = tmp_path / "root" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    thing(path, outside)
    try:
        answer = repr(READ_BY[place](tree))
    except (ImageMountError, OSError) as error:
        answer = str(error)
    assert CANARY not in answer
    assert len(answer) < 2_000_000


OF_ONE_SORT_KEY = b"linux /x\nsort-key a\nversion "
MADE_TO_BE_SLOW: dict[str, tuple[str, bytes]] = {
    "a key that never ends": ("etc/ssh/ssh_host_rsa_key", b"-----BEGIN PRIVATE KEY-----\n" * 37_000),
    "a key of empty lines": ("etc/ssh/ssh_host_rsa_key", b"-----BEGIN PRIVATE KEY-----" + b"\n" * 1_000_000),
    "a field of spaces": ("var/lib/dpkg/status", b"Package: a" + b" " * 4_000_000 + b"b\n"),
    "a line that goes on": ("usr/lib/systemd/system/a.service", b"[Install]\nWantedBy=" + b"a\\\n" * 500_000),
    "a long word": ("usr/lib/systemd/system/a.service", b"[Install]\nWantedBy=" + b"a" * 1_000_000),
    "a long version": ("boot/loader/entries/x.conf", OF_ONE_SORT_KEY + b"1." * 1_000_000),
    "a menu that asks for more": ("boot/grub/grub.cfg", b"blscfg\n" * 500_000),
}
"""A place, and a text that took its reader minutes to hours where the time grew with more than the length."""


@pytest.mark.timeout(30)
@pytest.mark.parametrize("case", MADE_TO_BE_SLOW)
def test_a_text_that_was_made_to_be_slow_is_read_in_seconds(case: str, tmp_path: Path) -> None:
    place, data = MADE_TO_BE_SLOW[case]
    tree = make_tree(tmp_path, {"boot/loader/entries/y.conf": OF_ONE_SORT_KEY + b"1." * 1_000_000, place: data})
    with suppress(FactsInvalid):
        READ_BY.get(place, read_bootloader)(tree)


def test_variables_of_a_menu_that_hold_each_other_take_no_memory(tmp_path: Path) -> None:
    menu = "menuentry a {\n linux /vmlinuz " + "$a" * 16_000 + "\n}\n"
    tree = make_tree(tmp_path, {"boot/grub/grub.cfg": menu, "boot/grub/grubenv": f"a={'x' * 20_000}\n"})
    (entry,) = read_bootloader(tree).entries
    assert len(entry.options) < 100_000


@pytest.mark.parametrize(
    "place", ["etc/passwd", "etc/fstab", "var/lib/dpkg/status", "etc/os-release", "boot/grub/grub.cfg"]
)
def test_a_file_without_bound_is_an_error_that_names_it(place: str, tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {place: ""})
    with (tmp_path / place).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FactsInvalid, match=f"/{place}: is larger than [0-9]+ bytes"):
        READ_BY[place](tree)


@pytest.mark.parametrize(
    ("folder", "place"),
    [
        ("etc", "etc/passwd"),
        ("etc", "etc/fstab"),
        ("var/lib/dpkg", "var/lib/dpkg/status"),
        ("etc/ssh", "etc/ssh/ssh_host_rsa_key"),
        ("etc/cron.d", "etc/cron.d/x"),
        ("usr/lib/systemd", "usr/lib/systemd/system/canary-from-outside.service"),
    ],
)
def test_a_folder_that_is_a_link_out_of_the_image_leads_nowhere(folder: str, place: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    target = outside / place.removeprefix(f"{folder}/")
    target.parent.mkdir(parents=True)
    target.write_text(f"{CANARY}:x:0:0:{CANARY}:/:/bin/sh\n")
    tree = make_tree(tmp_path / "root", {})
    (tmp_path / "root" / folder).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "root" / folder).symlink_to(outside)
    for read in set(READ_BY.values()):
        try:
            answer = repr(read(tree))
        except (ImageMountError, OSError) as error:
            answer = str(error)
        assert CANARY not in answer


EVIL = "x\n::error::y\x1b[31m\u202e"


@pytest.mark.parametrize(
    ("place", "data"),
    [
        (f"etc/cron.d/{EVIL}", "no time\n"),
        (f"var/lib/pacman/local/{EVIL}/desc", "%NAME%\n"),
        (f"var/lib/dpkg/status.d/{EVIL}", "Package: a\n"),
        (f"boot/loader/entries/{EVIL}.conf", "x" * (5 << 20)),
    ],
)
def test_names_in_errors_are_escaped(place: str, data: str, tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {place: data})
    said = []
    for read in (read_cron, read_packages, read_bootloader):
        with suppress(FactsMissing):
            try:
                read(tree)
            except FactsInvalid as error:
                said.append(str(error))
    (text,) = said
    assert text.isprintable()
    assert r"x\n::error::y\x1b[31m\u202e" in text


def test_names_of_packages_in_errors_are_escaped(tmp_path: Path) -> None:
    status = "Package: a\x1b[31m\nStatus: install ok installed\nVersion: 1\n"
    (package,) = read_packages(make_tree(tmp_path, {"var/lib/dpkg/status": status})).values()
    with pytest.raises(FactsMissing) as caught:
        package.files()
    assert "\x1b" not in str(caught.value)


texts = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.sampled_from(
            [
                b"Package: a",
                b"Status: install ok installed",
                b"Version: 1",
                b"\n",
                b"\n",
                b"P:",
                b"V:1",
                b"%NAME%",
                b":",
                b" ",
            ]
            + [
                b"x",
                b"0",
                b"\0",
                b"\xff",
                b"*",
                b"@daily",
                b"=",
                b"'",
                b'"',
                b"\\",
                b"[Install]",
                b"Alias=",
                b"#",
                b"\r",
            ]
        ),
        max_size=30,
    ).map(b"".join),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from([place for place in READ_BY if place not in ("boot", "usr/lib/modules")]), data=texts)
def test_any_bytes_are_read_or_are_an_error_of_ours(place: str, data: bytes, tmp_path: Path) -> None:
    root = tmp_path / "root"
    tree = make_tree(root, {name: text for name, text in BESIDES.items() if not name.startswith(place)})
    path = root / place
    for above in path.relative_to(root).parents:
        if (root / above).is_file():
            (root / above).unlink()
    if path.is_dir():
        path = path / "file"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    try:
        with suppress(ImageMountError):
            READ_BY[place](tree)
    finally:
        path.unlink()
