from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.lab.guest import modules
from pytest_imagemount.lab.guest.modules import Modules

if TYPE_CHECKING:
    from pathlib import Path

DEP = """\
kernel/fs/vfat.ko: kernel/fs/fat.ko
kernel/fs/fat.ko:
kernel/fs/isofs.ko.xz: kernel/lib/zlib_inflate.ko kernel/drivers/cdrom.ko
kernel/lib/zlib_inflate.ko:
kernel/drivers/cdrom.ko: kernel/lib/zlib_inflate.ko
kernel/drivers/md/dm-mod.ko:
kernel/crypto/xts.ko: kernel/crypto/gf128mul.ko
kernel/crypto/gf128mul.ko:
kernel/crypto/ecb.ko:
"""
ALIAS = """\
# Aliases extracted from modules themselves.
alias fs-vfat vfat
alias char-major-10-236 dm_mod
alias devname:mapper/control dm_mod
alias crypto-ecb ecb
alias pci:v0000*d*sv* vfat
alias pci:v00001234d* fat
"""
SOFTDEP = """\
softdep xts pre: crypto-ecb
softdep fat post: dm-mod
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("dep", DEP), ("alias", ALIAS), ("softdep", SOFTDEP)):
        (tmp_path / f"modules.{name}").write_text(text)
    (tmp_path / "sys").mkdir()
    return tmp_path


@pytest.fixture
def loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """File names and parameters in the order in which the kernel got them; it then has the module."""
    calls: list[tuple[str, str]] = []

    def load(path: str, parameters: str) -> None:
        name = path.rpartition("/")[2]
        calls.append((name, parameters))
        (folder / "sys" / name.partition(".ko")[0].replace("-", "_")).mkdir()

    monkeypatch.setattr(modules, "load_module_file", load)
    return calls


def of(folder: Path) -> Modules:
    return Modules(str(folder), str(folder / "sys"))


def test_what_a_module_needs_is_loaded_before_it(folder: Path, loaded: list[tuple[str, str]]) -> None:
    of(folder).load("isofs")
    assert loaded == [("cdrom.ko", ""), ("zlib_inflate.ko", ""), ("isofs.ko.xz", "")] or loaded == [
        ("zlib_inflate.ko", ""),
        ("cdrom.ko", ""),
        ("isofs.ko.xz", ""),
    ]
    assert loaded.index(("zlib_inflate.ko", "")) < loaded.index(("cdrom.ko", ""))


def test_parameters_are_for_the_named_module_alone(folder: Path, loaded: list[tuple[str, str]]) -> None:
    of(folder).load("vfat", "debug=1 level=2")
    assert loaded == [("fat.ko", ""), ("vfat.ko", "debug=1 level=2")]


@pytest.mark.parametrize("name", ["dm-mod", "dm_mod", "char-major-10-236", "devname:mapper/control"])
def test_a_module_is_found_by_name_and_by_alias(folder: Path, loaded: list[tuple[str, str]], name: str) -> None:
    of(folder).load(name)
    assert loaded == [("dm-mod.ko", "")]


def test_an_alias_with_wildcards_may_stand_for_several(folder: Path) -> None:
    assert of(folder).resolve("pci:v00001234d5sv6") == ["vfat", "fat"]
    assert of(folder).resolve("pci:v00005678d5sv6") == ["vfat"]
    assert of(folder).resolve("usb:v0000") == []


def test_a_soft_dependency_is_loaded_before_by_its_alias(folder: Path, loaded: list[tuple[str, str]]) -> None:
    of(folder).load("xts")
    assert loaded == [("ecb.ko", ""), ("gf128mul.ko", ""), ("xts.ko", "")]


def test_what_is_loaded_already_is_not_loaded_again(folder: Path, loaded: list[tuple[str, str]]) -> None:
    (folder / "sys/fat").mkdir()
    of(folder).load("vfat")
    of(folder).load("vfat")
    assert loaded == [("vfat.ko", "")]


def test_a_module_that_is_built_in_needs_no_file(folder: Path, loaded: list[tuple[str, str]]) -> None:
    (folder / "sys/ext4").mkdir()
    of(folder).load("ext4")
    assert loaded == []


def test_a_module_that_nobody_knows_is_an_error_with_its_name(folder: Path, loaded: list[tuple[str, str]]) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        of(folder).load("nosuch")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, "nosuch")


def test_a_module_that_another_process_has_just_loaded_is_no_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(path: str, parameters: str) -> None:
        raise FileExistsError(errno.EEXIST, "File exists", path)

    monkeypatch.setattr(modules, "load_module_file", load)
    of(folder).load("vfat")


def test_the_kernels_call_loads_and_tells_failure_by_its_status(
    folder: Path, loaded: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(modules, "running_modules", lambda: of(folder))
    assert modules.main(["-q", "--", "fs-vfat"]) == 0
    assert loaded == [("fat.ko", ""), ("vfat.ko", "")]
    assert modules.main(["-q", "--", "fs-nosuch"]) == 1
    assert capsys.readouterr().err == "fs-nosuch: no such kernel module\n"
