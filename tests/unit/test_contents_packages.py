"""Packages: the databases of dpkg, apk and pacman, several at once, and none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.contents.packages import read_packages
from pytest_imagemount.errors import FactsInvalid, FactsMissing

from .system_tree import Link, make_tree

if TYPE_CHECKING:
    from pathlib import Path

STATUS = """\
Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2-1
Description: shell
 Version: 0 is not the version
 .
 more

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

package: held
status: hold ok installed
architecture: all
version: 1:2.0~rc1-3

Package: half
Status: install reinstreq half-installed
Architecture: amd64
"""
TWO_ARCHITECTURES = """\
Package: dpkg
Status: install ok installed
Architecture: amd64
Version: 1.21

Package: libc6
Status: install ok installed
Architecture: i386
Version: 2.36

Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36
"""
APK = """\
C:Q1checksum=
P:musl
V:1.2.4-r2
A:aarch64
F:lib
R:libc.musl-aarch64.so.1
a:0:0:777
R:ld-musl-aarch64.so.1
F:
R:.hidden

P:alpine-keys
V:2.4-r1
A:noarch
F:etc/apk/keys
"""
DESC = "%NAME%\nbash\n\n%VERSION%\n5.2.026-2\n\n%ARCH%\nx86_64\n\n%DEPENDS%\nreadline\nglibc\n"
FILES = "%FILES%\nusr/\nusr/bin/bash\n\n%BACKUP%\netc/bash.bashrc\tsum\n"


def test_packages_of_dpkg_are_those_in_state_installed(tmp_path: Path) -> None:
    packages = read_packages(make_tree(tmp_path, {"var/lib/dpkg/status": STATUS}))
    found = {name: (each.version, each.arch, each.manager) for name, each in packages.items()}
    assert found == {"bash": ("5.2-1", "amd64", "dpkg"), "held": ("1:2.0~rc1-3", "all", "dpkg")}
    assert (repr(packages), len(packages)) == ("<2 packages>", 2)
    assert packages["bash"].satisfies(">= 5.2, << 6")
    with pytest.raises(KeyError):
        packages["gone"]


def test_files_of_a_dpkg_package(tmp_path: Path) -> None:
    files: dict[str, str | bytes | Link] = {
        "var/lib/dpkg/status": STATUS,
        "var/lib/dpkg/info/bash:amd64.list": b"/.\n/bin\n/bin/ba sh\n/bin/\xff\n",
        "var/lib/dpkg/info/held.list": "/.\n",
    }
    packages = read_packages(make_tree(tmp_path, files))
    assert packages["bash"].files() == ("/bin", "/bin/ba sh", "/bin/\udcff")
    assert packages["held"].files() == ()


def test_a_missing_list_of_files_is_an_error_and_not_an_empty_answer(tmp_path: Path) -> None:
    packages = read_packages(make_tree(tmp_path, {"var/lib/dpkg/status": STATUS}))
    with pytest.raises(FactsMissing, match=r"list of the files of package bash"):
        packages["bash"].files()


def test_a_name_that_is_installed_for_two_architectures_has_two_keys(tmp_path: Path) -> None:
    packages = read_packages(make_tree(tmp_path, {"var/lib/dpkg/status": TWO_ARCHITECTURES}))
    assert sorted(packages) == ["dpkg", "libc6:amd64", "libc6:i386"]
    assert packages["libc6:i386"].arch == "i386"
    assert packages["libc6"].arch == "amd64"
    assert packages["dpkg:amd64"].name == "dpkg"
    assert "libc6" in packages


def test_what_an_interrupted_dpkg_left_to_be_merged_counts(tmp_path: Path) -> None:
    files: dict[str, str | bytes | Link] = {
        "var/lib/dpkg/status": STATUS,
        "var/lib/dpkg/updates/0001": "Package: bash\nStatus: deinstall ok config-files\nArchitecture: amd64\n",
        "var/lib/dpkg/updates/0002": "Package: half\nStatus: install ok installed\nArchitecture: amd64\nVersion: 3\n",
        "var/lib/dpkg/updates/tmp.i": "Package: no\nStatus: install ok installed\nVersion: 3\n",
    }
    assert sorted(read_packages(make_tree(tmp_path, files))) == ["half", "held"]


def test_packages_of_a_distroless_image(tmp_path: Path) -> None:
    files: dict[str, str | bytes | Link] = {
        "var/lib/dpkg/status.d/tzdata": "Package: tzdata\nVersion: 2024a\nArchitecture: all\n",
        "var/lib/dpkg/status.d/tzdata.md5sums": "0123  usr/share/zone info\nabcd  /etc/x\n",
        "var/lib/dpkg/status.d/base": "Package: base\nVersion: 12\n",
    }
    packages = read_packages(make_tree(tmp_path, files))
    assert {name: each.version for name, each in packages.items()} == {"tzdata": "2024a", "base": "12"}
    assert packages["tzdata"].files() == ("/usr/share/zone info", "/etc/x")
    with pytest.raises(FactsMissing, match="list of the files"):
        packages["base"].files()


@pytest.mark.parametrize("place", ["lib/apk/db/installed", "usr/lib/apk/db/installed"])
def test_packages_of_apk(place: str, tmp_path: Path) -> None:
    packages = read_packages(make_tree(tmp_path, {place: APK}))
    found = {name: (each.version, each.arch, each.manager) for name, each in packages.items()}
    assert found == {"musl": ("1.2.4-r2", "aarch64", "apk"), "alpine-keys": ("2.4-r1", "noarch", "apk")}
    assert packages["musl"].files() == ("/lib/libc.musl-aarch64.so.1", "/lib/ld-musl-aarch64.so.1", "/.hidden")
    assert packages["alpine-keys"].files() == ()
    assert packages["musl"].satisfies("> 1.2.4_rc1")


def test_packages_of_pacman(tmp_path: Path) -> None:
    files: dict[str, str | bytes | Link] = {
        "var/lib/pacman/local/ALPM_DB_VERSION": "9\n",
        "var/lib/pacman/local/bash-5.2.026-2/desc": DESC,
        "var/lib/pacman/local/bash-5.2.026-2/files": FILES,
        "var/lib/pacman/local/x-1-1/desc": "%NAME%\nx\n\n%VERSION%\n1-1\n",
    }
    packages = read_packages(make_tree(tmp_path, files))
    found = {name: (each.version, each.arch, each.manager) for name, each in packages.items()}
    assert found == {"bash": ("5.2.026-2", "x86_64", "pacman"), "x": ("1-1", "", "pacman")}
    assert packages["bash"].files() == ("/usr/", "/usr/bin/bash")
    with pytest.raises(FactsMissing, match="list of the files of package x"):
        packages["x"].files()


def test_databases_of_two_managers_are_read_together(tmp_path: Path) -> None:
    packages = read_packages(make_tree(tmp_path, {"var/lib/dpkg/status": STATUS, "lib/apk/db/installed": APK}))
    assert {each.manager for each in packages.values()} == {"dpkg", "apk"}
    assert {"bash", "musl"} <= set(packages)


def test_no_database_is_an_error_that_names_every_one(tmp_path: Path) -> None:
    with pytest.raises(FactsMissing) as caught:
        read_packages(make_tree(tmp_path, {"etc/": ""}))
    assert caught.value.fact == "package database"
    places = {"/var/lib/dpkg/status", "/var/lib/rpm/rpmdb.sqlite", "/lib/apk/db/installed", "/var/lib/pacman/local"}
    assert places <= set(caught.value.looked)
    assert isinstance(caught.value, LookupError)


def test_a_database_without_packages_is_no_error(tmp_path: Path) -> None:
    assert dict(read_packages(make_tree(tmp_path, {"var/lib/dpkg/status": ""}))) == {}


@pytest.mark.parametrize(
    ("place", "text", "path"),
    [
        ("var/lib/dpkg/status", "Package: x\nStatus: install ok installed\n", "/var/lib/dpkg/status"),
        ("var/lib/dpkg/status", "Status: install ok installed\nVersion: 1\n", "/var/lib/dpkg/status"),
        ("var/lib/dpkg/status.d/x", "Package: x\n", "/var/lib/dpkg/status.d/x"),
        ("lib/apk/db/installed", "P:x\n\n", "/lib/apk/db/installed"),
        ("var/lib/pacman/local/x-1/desc", "%NAME%\nx\n", "/var/lib/pacman/local/x-1/desc"),
        ("var/lib/pacman/local/x-1/files", "", "/var/lib/pacman/local/x-1/desc"),
    ],
)
def test_a_package_without_name_or_version_is_an_error(place: str, text: str, path: str, tmp_path: Path) -> None:
    with pytest.raises(FactsInvalid, match="the database is corrupt") as caught:
        read_packages(make_tree(tmp_path, {place: text}))
    assert (caught.value.image, caught.value.path) == ("disk.raw", path)


def test_paths_of_apk_that_take_far_more_than_the_database_are_an_error(tmp_path: Path) -> None:
    text = f"P:many\nV:1\nF:{'x' * 100_000}\n" + "R:a\n" * 1000
    with pytest.raises(
        FactsInvalid, match="/lib/apk/db/installed: package 'many' has a list of files of more than 64 MiB"
    ):
        read_packages(make_tree(tmp_path, {"lib/apk/db/installed": text}))
