from __future__ import annotations

import marshal
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount.capabilities import TABLE, Capabilities
from pytest_imagemount.errors import CapabilityMissing, LabFailed, RequestInvalid, from_wire
from pytest_imagemount.lab import kernel, run, run_in_lab
from pytest_imagemount.lab.guest import mounts
from pytest_imagemount.lab.guest.command import status_without_start
from pytest_imagemount.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_imagemount.lab.streams import Streams


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the guest was told by the last lab, and its ``memory`` in bytes; no kernel starts."""
    told: dict[str, Any] = {}

    @contextmanager
    def running_kernel(memory: int) -> Iterator[None]:
        told["memory"] = memory
        yield

    class Relay:
        def __init__(self, kernel: None, streams: Streams, config: bytes) -> None:
            told.update(marshal.loads(config))

        def run(self, deadline: float | None) -> int:
            return 0

    monkeypatch.setattr(run, "require", lambda name: None)
    monkeypatch.setattr(run, "running_kernel", running_kernel)
    monkeypatch.setattr(run, "Relay", Relay)
    return told


@pytest.mark.parametrize(
    ("text", "size"), [("2G", 2 << 30), ("512M", 512 << 20), ("512mb", 512 << 20), (" 200000k ", 200000 << 10)]
)
def test_memory_is_a_number_and_a_unit(text: str, size: int) -> None:
    assert run.parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "G", "2T", "-1G", "1.5G", "2 G B", "127M", "0"])
def test_memory_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid, match="memory="):
        run.parse_memory(text)


def test_the_guest_is_told_command_environment_and_folder_as_bytes(config: dict[str, Any], tmp_path: Path) -> None:
    odd = os.fsdecode(b"\xff")
    run_in_lab(["echo", odd], cwd=tmp_path, environment={"NAME": f"a\n{odd}"}, memory="1G", nbds_max=3)
    assert config["command"] == [b"echo", b"\xff"]
    assert config["environment"][b"NAME"] == b"a\n\xff"
    assert config["environment"][b"DM_DISABLE_UDEV"] == b"1"
    assert config["cwd"] == os.fsencode(tmp_path)
    assert config["modules"][0] == "nbd nbds_max=3 max_part=0"
    assert config["memory"] == 1 << 30


def test_the_callers_own_value_of_a_variable_wins(config: dict[str, Any], tmp_path: Path) -> None:
    run_in_lab(["true"], cwd=tmp_path, environment={"DM_DISABLE_UDEV": "0"})
    assert config["environment"][b"DM_DISABLE_UDEV"] == b"0"


def test_a_link_to_the_folder_is_followed(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    run_in_lab(["true"], cwd=tmp_path / "link")
    assert config["cwd"] == os.fsencode(tmp_path / "real")
    assert (str(tmp_path / "real"), True) in config["folders"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cwd": Path("/no/such")}, "cwd=/no/such: there is no such folder"),
        ({"cwd": Path("/proc/self")}, "the lab has a file system of its own there"),
        ({"cwd": Path("/dev")}, "the lab has a file system of its own there"),
        ({"read_write": [Path("/")]}, "read_write=/: the machine's root stays read-only"),
        ({"read_write": [Path("/etc/passwd")]}, "read_write=/etc/passwd: there is no such folder"),
        ({"environment": {"NAME": "a\0b"}}, "it holds a null character"),
        ({"command": []}, "name a program to run"),
        ({"memory": "lots"}, "memory=lots"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_a_kernel_starts(
    config: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestInvalid, match=message):
        run_in_lab(**{"command": ["true"], "cwd": Path("/usr"), **arguments})
    assert "memory" not in config


def test_folders_are_shared_once_and_hidden_ones_are_shown() -> None:
    shared = run.shared_folders(
        Path("/tmp/project"),
        [Path("/home/user/data")],
        [Path("/tmp/env"), Path("/tmp/project/.venv"), Path("/usr"), Path("/var/tmp/tool"), Path("/tmp")],
    )
    assert shared == {
        Path("/tmp/project"): True,
        Path("/home/user/data"): True,
        Path("/tmp/env"): False,
        Path("/var/tmp/tool"): False,
    }


def test_the_root_as_current_folder_stays_read_only() -> None:
    assert run.shared_folders(Path("/"), [], []) == {}


def test_without_user_mode_linux_the_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = Capabilities(Machine(tmp_path, 1000, "6.1.0", "x86_64"))
    monkeypatch.setattr("pytest_imagemount.capabilities.capabilities", lambda: here)
    with pytest.raises(CapabilityMissing, match=r"linux\.uml is not installed.*package user-mode-linux") as caught:
        run_in_lab(["true"])
    assert caught.value.capability == "lab"


def test_a_lab_inside_a_lab_is_refused(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nvendor_id\t: User Mode Linux\n")
    reason = TABLE["lab"].probe(Capabilities(Machine(tmp_path, 0, "6.1.176", "x86_64")))
    assert reason == "this is a lab already, and User-Mode Linux does not run inside itself"


class Folders:
    """statvfs of made-up folders: free bytes, and flags."""

    def __init__(self, **folders: tuple[int, int]) -> None:
        self._folders = {f"/{name.replace('_', '/')}": facts for name, facts in folders.items()}

    def __call__(self, folder: str) -> os.statvfs_result:
        if folder not in self._folders:
            raise FileNotFoundError(2, "No such file or directory", folder)
        free, flags = self._folders[folder]
        return os.statvfs_result((1, 1, free, free, free, 0, 0, 0, flags, 255))


@pytest.mark.parametrize(
    ("folders", "chosen"),
    [
        ({"dev_shm": (8 << 30, 0), "tmp": (8 << 30, 0)}, "/dev/shm"),
        ({"dev_shm": (64 << 20, 0), "tmp": (8 << 30, 0)}, "/tmp"),
        ({"dev_shm": (8 << 30, os.ST_NOEXEC), "var_tmp": (8 << 30, 0)}, "/var/tmp"),
    ],
)
def test_the_kernels_memory_goes_where_it_fits_and_may_be_executed(
    monkeypatch: pytest.MonkeyPatch, folders: dict[str, tuple[int, int]], chosen: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    monkeypatch.setattr(os, "statvfs", Folders(**folders))
    assert kernel.memory_folder(2 << 30) == chosen


def test_memory_that_fits_nowhere_is_an_error_that_says_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    monkeypatch.setattr(os, "statvfs", Folders(dev_shm=(64 << 20, 0), tmp=(8 << 30, os.ST_NOEXEC)))
    with pytest.raises(
        LabFailed, match="/dev/shm: 64 MiB free, /tmp: mounted noexec, /var/tmp: No such file"
    ) as caught:
        kernel.memory_folder(2 << 30)
    assert "--memory" in caught.value.hint
    assert str(from_wire(caught.value.to_wire())) == str(caught.value)


def test_the_end_of_a_console_is_its_last_lines() -> None:
    log = b"".join(b"line %d\n" % number for number in range(100))
    assert kernel.console_end(log).splitlines() == [f"line {number}" for number in range(80, 100)]


def test_the_end_of_a_console_with_a_panic_is_what_came_before_it() -> None:
    lines = [f"line {number}" for number in range(50)] + ["Kernel panic - not syncing"] + ["trace"] * 60
    end = kernel.console_end("\n".join(lines).encode() + b"\xff").splitlines()
    assert len(end) == 20
    assert "Kernel panic - not syncing" in end
    assert "line 49" in end


def test_the_escapes_of_the_mount_table_are_undone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert mounts._unescape(rb"/with\040blank\134and\011tab\012") == b"/with blank\\and\ttab\n"
    assert mounts._unescape(b"/plain") == b"/plain"


@pytest.mark.parametrize(
    ("error", "status"), [(FileNotFoundError(2, ""), 127), (NotADirectoryError(20, ""), 127), (OSError(8, ""), 126)]
)
def test_a_command_that_does_not_start_has_the_shells_status(error: OSError, status: int) -> None:
    assert status_without_start(error) == status
