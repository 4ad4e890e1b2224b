"""Packages of rpm databases that rpm itself, or Berkeley DB, made."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount import programs
from pytest_imagemount.contents.packages import read_packages
from pytest_imagemount.contents.rpm_sqlite import read_headers
from pytest_imagemount.contents.versions import compare
from tests.unit.system_tree import make_tree

from .debian_root import cannot

if TYPE_CHECKING:
    from pathlib import Path

SPECIFICATION = """\
Name: tiny
Epoch: 2
Version: 1.2~rc1
Release: 3
Summary: A tiny package
License: MIT
BuildArch: noarch
%description
Nothing.
%package -n other
Epoch: 0
Version: 7
Summary: Another
%description -n other
Nothing.
%package -n empty
Summary: One without files
%description -n empty
Nothing.
%install
mkdir -p %{buildroot}/usr/share/tiny %{buildroot}/etc
echo a > %{buildroot}/usr/share/tiny/a.txt
ln -s a.txt "%{buildroot}/usr/share/tiny/b c.txt"
echo x > %{buildroot}/etc/other.conf
%files
%dir /usr/share/tiny
/usr/share/tiny/a.txt
"/usr/share/tiny/b c.txt"
%files -n other
/etc/other.conf
%files -n empty
"""
MANY = 40


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database in SQLite, in which three packages are installed."""
    for program in ("rpm", "rpmbuild"):
        if programs.find_program(program) is None:
            cannot("install package rpm", "rpm")
    folder = tmp_path_factory.mktemp("rpm")
    (folder / "tiny.spec").write_text(SPECIFICATION)
    build = ["rpmbuild", "-bb", "--quiet", "--define", f"_topdir {folder}/top", str(folder / "tiny.spec")]
    programs.run(build)
    root = folder / "root"
    (root / "var/lib/rpm").mkdir(parents=True)
    packages = sorted(str(path) for path in (folder / "top").rglob("*.rpm"))
    options = ["--dbpath", f"{root}/var/lib/rpm", "--define", "_db_backend sqlite"]
    programs.run(["rpm", *options, "--initdb"])
    programs.run(["rpm", *options, "--install", "--nodeps", "--justdb", "--ignoreos", "--noscripts", *packages])
    return root


def query(database: Path, backend: str) -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """Name to version, architecture and files, as rpm prints them."""
    form = "%{NAME}|%{EVR}|%{ARCH}|[%{FILENAMES}|]\\n"
    options = ["--dbpath", str(database), "--define", f"_db_backend {backend}"]
    printed = programs.run(["rpm", *options, "-q", "-a", f"--queryformat={form}"]).decode()
    rows = [line.split("|") for line in printed.splitlines()]
    return {name: (version, arch, tuple(filter(None, files))) for name, version, arch, *files in rows}


def found(root: Path) -> dict[str, tuple[str, str, tuple[str, ...]]]:
    packages = read_packages(make_tree(root, {}))
    assert {package.manager for package in packages.values()} == {"rpm"}
    return {name: (package.version, package.arch, package.files()) for name, package in packages.items()}


def test_packages_of_a_database_in_sqlite_are_those_that_rpm_lists(system: Path) -> None:
    before = {path.name: path.read_bytes() for path in (system / "var/lib/rpm").iterdir()}
    facts = found(system)
    assert {path.name: path.read_bytes() for path in (system / "var/lib/rpm").iterdir()} == before
    assert facts == query(system / "var/lib/rpm", "sqlite")
    tiny = ("/usr/share/tiny", "/usr/share/tiny/a.txt", "/usr/share/tiny/b c.txt")
    assert facts["tiny"] == ("2:1.2~rc1-3", "noarch", tiny)
    assert facts["empty"][2] == ()


def test_packages_of_a_database_in_berkeley_db_are_those_that_rpm_lists(system: Path, tmp_path: Path) -> None:
    if programs.find_program("db5.3_load") is None:
        cannot("install package db5.3-util", "db5.3-util")
    headers = list(read_headers(make_tree(system, {}) / "var/lib/rpm/rpmdb.sqlite"))
    database = tmp_path / "var/lib/rpm/Packages"
    database.parent.mkdir(parents=True)
    # Number 0 is rpm's counter. Many numbers for one package, so that the table has more than one page of keys.
    values = [struct.pack("<I", MANY), *(headers[number % len(headers)] for number in range(MANY))]
    rows = "".join(f" {struct.pack('<I', key).hex()}\n {value.hex()}\n" for key, value in enumerate(values))
    dump = f"VERSION=3\nformat=bytevalue\ntype=hash\nHEADER=END\n{rows}DATA=END\n"
    programs.run(["db5.3_load", str(database)], stdin=dump.encode())
    packages = read_packages(make_tree(tmp_path, {}))
    assert len(packages) == len({(package.name, package.version) for package in packages.values()})
    assert {each.name: (each.version, each.arch, each.files()) for each in packages.values()} == query(
        database.parent, "bdb_ro"
    )


def test_versions_are_ordered_as_rpm_orders_them() -> None:
    if programs.find_program("rpm") is None:
        cannot("install package rpm", "rpm")
    parts = ("", "0", "1", "01", "10", "a", "b", "ab", "~", "^", ".", "_", "1.a", "1~", "1^", "2-1", "1:1", "1-2")
    pairs = [(f"1{a}", f"1{b}") for a in parts for b in parts]
    script = " ".join(f'print(rpm.vercmp("{a}", "{b}") .. " ")' for a, b in pairs)
    printed = programs.run(["rpm", "--eval", f"%{{lua: {script}}}"]).decode().split()
    assert [compare("rpm", a, b) for a, b in pairs] == [int(float(number)) for number in printed]
