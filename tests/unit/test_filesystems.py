from __future__ import annotations

import pytest

from pytest_imagemount.engine import filesystems, syscalls
from pytest_imagemount.errors import RequestInvalid


def test_nosuid_and_nodev_are_always_there() -> None:
    assert filesystems.split_options([]) == (syscalls.MS_NOSUID | syscalls.MS_NODEV, ())


def test_flags_and_data_are_told_apart() -> None:
    flags, data = filesystems.split_options(["noexec,errors=panic", "noatime"])
    assert flags == syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC | syscalls.MS_NOATIME
    assert data == ("errors=panic",)


@pytest.mark.parametrize(
    "option",
    ["ro", "rw", "suid", "dev", "remount", "device=/dev/sda", "logdev=sda", "x=/etc", "journal_dev=0x801", "a\nb"],
)
def test_options_that_are_not_the_callers_are_refused(option: str) -> None:
    with pytest.raises(RequestInvalid, match="options="):
        filesystems.split_options([option])


def test_only_file_systems_with_a_journal_have_a_way_to_skip_its_replay() -> None:
    assert filesystems.no_replay_options("ext4") == ("noload",)
    assert filesystems.no_replay_options("xfs") == ("norecovery",)
    assert filesystems.no_replay_options("vfat") == ()


def test_types_without_a_device_are_known() -> None:
    assert not filesystems.is_block_filesystem("tmpfs")
    assert not filesystems.is_block_filesystem("proc")
    assert filesystems.is_block_filesystem("ext4")
    assert not filesystems.is_block_filesystem("unheard-of")


def test_types_whose_driver_is_not_loaded_are_known_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathlib.Path.read_text", lambda _: "nodev\tproc\n")
    assert filesystems.is_block_filesystem("xfs")
    assert not filesystems.is_block_filesystem("overlay")
