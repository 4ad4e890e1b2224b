"""What a system says of itself: os-release, architecture, kernels, machine id, host name, time zone, locale."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.contents.architecture import read_architecture
from pytest_imagemount.contents.assignments import parse_assignments
from pytest_imagemount.contents.operating_system import OsFacts, read_machine_id, read_os
from pytest_imagemount.errors import FactsMissing

from .system_tree import Link, make_tree

if TYPE_CHECKING:
    from pathlib import Path

RELEASE = "ID=probe\n"


def facts(folder: Path, files: dict[str, str | bytes | Link]) -> OsFacts:
    return read_os(make_tree(folder, {"etc/os-release": RELEASE, **files}))


def elf(machine: int, *, bits: int = 64, order: str = "<") -> bytes:
    head = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    return head + struct.pack(f"{order}HH", 2, machine)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=plain", "plain"),
        ("A=", ""),
        ("A=''", ""),
        ('A="two words"', "two words"),
        ("A='single $x \"q\" \\n'", 'single $x "q" \\n'),
        (r'A="a \"b\" \\ \$c \` \d"', 'a "b" \\ $c ` \\d'),
        (r"A=a\ b\'c", "a b'c"),
        ('A=a"b c"d', "ab cd"),
        ("A=two words  ", "two words"),
        ("A=value # comment", "value"),
        ("A=value#no-comment", "value#no-comment"),
        ('A="x" # comment', "x"),
        ('A="ends in space " ', "ends in space "),
        ("  export A=x", "x"),
        ("A=1\nA=2", "2"),
        ('A="line\nline"\nB=x', "line\nline"),
        ("A=on\\\nward", "onward"),
        ("#A=0\nA=1", "1"),
        ('B="\nA=inside\n"\nA=outside', "outside"),
        ('A="never ends', "never ends"),
    ],
)
def test_an_assignment_is_read_as_a_shell_reads_it(text: str, value: str) -> None:
    assert parse_assignments(text)["A"] == value


def test_lines_that_are_no_assignments_are_passed_over() -> None:
    assert parse_assignments("\n# A=1\nnot one\n1A=x\nA-B=x\n=x\n") == {}


def test_the_fields_of_os_release(tmp_path: Path) -> None:
    text = '# comment\nID=debian\nVERSION_ID="12"\nNAME=\'Debian GNU/Linux\'\nPRETTY_NAME="Debian 12"\nX=y\n'
    found = facts(tmp_path, {"etc/os-release": text})
    assert (found.id, found.version_id, found.name, found.pretty_name) == (
        "debian",
        "12",
        "Debian GNU/Linux",
        "Debian 12",
    )
    assert found.fields["X"] == "y"


def test_what_os_release_does_not_say_has_the_defaults_of_its_manual(tmp_path: Path) -> None:
    found = facts(tmp_path, {"etc/os-release": "X=y\n"})
    assert (found.id, found.version_id, found.name, found.pretty_name) == ("linux", None, "Linux", "Linux")


def test_os_release_of_usr_counts_where_etc_has_none(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"usr/lib/os-release": "ID=vendor\n"})
    assert read_os(tree).id == "vendor"


def test_a_link_to_os_release_is_followed_inside_the_image(tmp_path: Path) -> None:
    files: dict[str, str | bytes | Link] = {
        "usr/lib/os-release": "ID=vendor\n",
        "etc/os-release": Link("/usr/lib/os-release"),
    }
    assert read_os(make_tree(tmp_path, files)).id == "vendor"


def test_no_os_release_is_an_error_that_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FactsMissing) as caught:
        read_os(make_tree(tmp_path, {"etc/": ""}))
    assert caught.value.looked == ("/etc/os-release", "/usr/lib/os-release")
    assert "image 'disk.raw' has no os-release" in str(caught.value)
    assert "/usr/lib/os-release" in str(caught.value)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (elf(62), "x86_64"),
        (elf(62, bits=32), "x32"),
        (elf(183), "aarch64"),
        (elf(3, bits=32), "i386"),
        (elf(40, bits=32), "arm"),
        (elf(243), "riscv64"),
        (elf(21), "ppc64le"),
        (elf(21, order=">"), "ppc64"),
        (elf(22, order=">"), "s390x"),
        (elf(8, bits=32, order=">"), "mips"),
        (elf(258), "loongarch64"),
    ],
)
def test_the_architecture_is_that_of_the_shell(header: bytes, name: str, tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"usr/bin/dash": header + bytes(44), "bin/sh": Link("/usr/bin/dash")})
    assert read_architecture(tree) == name


def test_the_architecture_is_that_of_the_library_where_no_program_tells(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"bin/sh": "#!script\n", "lib/ld-musl-aarch64.so.1": elf(183)})
    assert read_architecture(tree) == "aarch64"


@pytest.mark.parametrize(
    ("place", "text", "name"),
    [
        ("etc/apk/arch", "aarch64\n", "aarch64"),
        ("etc/apk/arch", "x86\n", "i386"),
        ("var/lib/dpkg/arch", "amd64\ni386\n", "x86_64"),
        ("var/lib/dpkg/arch", "\n", None),
    ],
)
def test_the_architecture_is_the_package_managers_where_there_is_no_program(
    place: str, text: str, name: str | None, tmp_path: Path
) -> None:
    assert read_architecture(make_tree(tmp_path, {place: text})) == name


@pytest.mark.parametrize("content", [b"", b"\x7fELF", elf(62)[:-1], elf(0xFFFF), b"x" * 64])
def test_a_shell_that_is_no_program_says_no_architecture(content: bytes, tmp_path: Path) -> None:
    assert read_architecture(make_tree(tmp_path, {"bin/sh": content})) is None


def test_kernels_are_those_of_lib_modules_and_boot_the_oldest_first(tmp_path: Path) -> None:
    files: dict[str, str | bytes | Link] = {
        "usr/lib/modules/6.10.2-arch1/": "",
        "usr/lib/modules/6.9.1-arch1/": "",
        "usr/lib/modules/extra/": "",
        "usr/lib/modules/6.1.0-file": "",
        "lib": Link("usr/lib"),
        "boot/vmlinuz-6.9.1-arch1": "",
        "boot/vmlinuz-5.10.0-8-amd64": "",
        "boot/vmlinuz-0-rescue-f00": "",
        "boot/vmlinuz-linux": "",
        "boot/initrd.img-4.0": "",
    }
    assert facts(tmp_path, files).kernels == ("5.10.0-8-amd64", "6.9.1-arch1", "6.10.2-arch1")


@pytest.mark.parametrize(
    ("content", "state"),
    [
        ("", "empty"),
        ("\n", "empty"),
        ("uninitialized\n", "uninitialized"),
        ("0123456789abcdef0123456789abcdef\n", "set"),
        ("garbage", "set"),
        (Link("/var/lib/dbus/machine-id"), "absent"),
        (None, "absent"),
    ],
)
def test_the_state_of_the_machine_id(content: str | Link | None, state: str, tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"etc/": ""} if content is None else {"etc/machine-id": content})
    assert read_machine_id(tree) == state


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"etc/hostname": "web01\n"}, "web01"),
        ({"etc/hostname": "# set by us\n\n web01 \n"}, "web01"),
        ({"etc/hostname": "\n"}, None),
        ({"etc/conf.d/hostname": 'hostname="gentoo"\n'}, "gentoo"),
        ({}, None),
    ],
)
def test_the_host_name(files: dict[str, str | bytes | Link], name: str | None, tmp_path: Path) -> None:
    assert facts(tmp_path, files).hostname == name


@pytest.mark.parametrize(
    ("files", "zone"),
    [
        ({"etc/localtime": Link("/usr/share/zoneinfo/Europe/Vienna")}, "Europe/Vienna"),
        ({"etc/localtime": Link("../usr/share/zoneinfo/UTC")}, "UTC"),
        ({"etc/localtime": Link("/usr/share/zoneinfo/right/UTC"), "etc/timezone": "Asia/Tokyo\n"}, "UTC"),
        ({"etc/localtime": b"TZif2", "etc/timezone": "Asia/Tokyo\n"}, "Asia/Tokyo"),
        ({"etc/localtime": b"TZif2"}, None),
        ({}, None),
    ],
)
def test_the_time_zone(files: dict[str, str | bytes | Link], zone: str | None, tmp_path: Path) -> None:
    assert facts(tmp_path, files).timezone == zone


@pytest.mark.parametrize(
    ("files", "locale"),
    [
        ({"etc/locale.conf": "LANG=de_AT.UTF-8\n"}, "de_AT.UTF-8"),
        ({"etc/default/locale": 'LANG="C.UTF-8"\nLC_ALL=x\n'}, "C.UTF-8"),
        ({"etc/locale.conf": "LC_TIME=x\n", "etc/default/locale": "LANG=C\n"}, "C"),
        ({}, None),
    ],
)
def test_the_locale(files: dict[str, str | bytes | Link], locale: str | None, tmp_path: Path) -> None:
    assert facts(tmp_path, files).locale == locale


def test_bytes_that_are_not_utf8_stay_readable(tmp_path: Path) -> None:
    found = facts(tmp_path, {"etc/os-release": b'ID="a\xffb"\n', "etc/hostname": b"\xfe\n"})
    assert (found.id, found.hostname) == ("a\\xffb", "\\xfe")
