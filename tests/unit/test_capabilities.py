"""Every capability that can be missing, with the sentence that says why."""

from __future__ import annotations

import errno
import io
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount import capabilities as capabilities_module
from pytest_imagemount import programs
from pytest_imagemount.capabilities import TABLE, Capabilities, absent_packages, missing, require
from pytest_imagemount.engine import syscalls
from pytest_imagemount.engine.nbd.netlink import NbdNetlink
from pytest_imagemount.errors import CapabilityMissing
from pytest_imagemount.machine import Machine
from pytest_imagemount.report_header import header_line
from tests.unit.fake_machine import FakeMachine

if TYPE_CHECKING:
    from pathlib import Path

NO_NBD = "the kernel has no nbd module: /sys/module/nbd is absent and modprobe finds none"
FILESYSTEMS = {"xfs": "xfs", "btrfs": "btrfs", "squashfs": "squashfs", "vfat": "vfat", "erofs": "erofs"}
FILESYSTEMS |= {"iso9660": "isofs", "overlay": "overlay"}


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path / "root")


def test_a_machine_with_everything_lacks_nothing(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NbdNetlink, "open", lambda: io.BytesIO())
    here = machine.capabilities()
    lacking = {name: here[name] for name in here if name not in ("openat2", "libblkid")}
    assert lacking == dict.fromkeys(lacking)


def test_an_ordinary_user_is_not_root(machine: FakeMachine) -> None:
    assert machine.capabilities(uid=1000)["root"] == "the user is 1000, not root"


def test_root_of_a_rootless_container_cannot_mount(machine: FakeMachine) -> None:
    machine.write("proc/self/uid_map", "0 1000 1\n")
    here = machine.capabilities()
    reason = "root of a user namespace (a rootless container) may not mount block devices"
    assert here["root"] == here["privileged"] == here["loop"] == here["nbd"] == reason


def test_root_of_a_plain_container_cannot_mount(machine: FakeMachine) -> None:
    machine.status(CapEff="00000000a80425fb")
    here = machine.capabilities()
    assert here["root"] == "root lacks CAP_SYS_ADMIN here, as in a container without --privileged"
    assert here["privileged"] == here["root"]


def test_a_user_with_sudo_is_privileged(machine: FakeMachine) -> None:
    here = machine.capabilities(uid=1000)
    assert here["sudo"] is here["privileged"] is here["loop"] is here["nbd"] is None


def test_a_user_without_sudo_is_not_privileged(machine: FakeMachine) -> None:
    machine.remove_program("sudo")
    here = machine.capabilities(uid=1000)
    assert here["sudo"] == "sudo is not installed"
    assert here["privileged"] == here["loop"] == "the user is 1000, not root, and sudo is not installed"


def test_sudo_that_wants_a_password_does_not_count(machine: FakeMachine) -> None:
    machine.program("sudo", b"#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
    assert machine.capabilities(uid=1000)["sudo"] == "`sudo -n true` failed: sudo: a password is required"


def test_sudo_that_hangs_does_not_hang_the_probe(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_imagemount.probes._SUDO_TIMEOUT", 0.2)
    machine.program("sudo", b"#!/bin/sh\nexec sleep 60\n")
    reason = machine.capabilities(uid=1000)["sudo"]
    assert reason == "`sudo -n true` failed: did not end within 0 s and was killed"


def test_sudo_is_no_use_without_new_privileges(machine: FakeMachine) -> None:
    machine.status(NoNewPrivs="1")
    reason = machine.capabilities(uid=1000)["sudo"]
    assert reason == "sudo cannot gain privilege: this process runs with no_new_privs"


def test_sudo_is_no_use_in_a_rootless_container(machine: FakeMachine) -> None:
    machine.write("proc/self/uid_map", "0 1000 1\n")
    reason = machine.capabilities(uid=1000)["sudo"]
    assert reason == "sudo gives no more than root of this user namespace (a rootless container)"


def test_a_kernel_without_the_loop_driver_has_no_loop(machine: FakeMachine) -> None:
    machine.remove("sys/module/loop")
    reason = machine.capabilities()["loop"]
    assert reason == "the kernel has no loop driver: /sys/module/loop is absent and modprobe finds none"


def test_a_loop_driver_that_can_be_loaded_is_a_loop_driver(machine: FakeMachine) -> None:
    machine.remove("sys/module/loop")
    machine.modules("loop")
    assert machine.capabilities()["loop"] is None
    machine.remove("dev/loop-control")
    reason = machine.capabilities()["loop"]
    assert reason == "/dev/loop-control is absent: the module loop is not loaded"


def test_a_built_in_driver_needs_no_loading(machine: FakeMachine) -> None:
    machine.remove("sys/module/loop")
    machine.modules("loop", builtin=True)
    assert machine.capabilities()["loop"] is None


def test_the_modules_of_the_lab_are_where_debian_keeps_them(machine: FakeMachine) -> None:
    machine.modules()
    machine.write("usr/lib/uml/modules/6.1.176/modules.dep", "kernel/fs/xfs/xfs.ko:\n")
    assert machine.capabilities(release="6.1.176")["xfs"] is None
    assert machine.capabilities()["xfs"] is not None, "they are of no use to another kernel"


def test_a_container_that_hides_the_loop_driver_has_no_loop(machine: FakeMachine) -> None:
    machine.remove("dev/loop-control")
    reason = machine.capabilities()["loop"]
    assert reason == "/dev/loop-control is absent: the container does not show it"


def test_a_loop_control_that_cannot_be_opened_is_told(machine: FakeMachine) -> None:
    machine.remove("dev/loop-control")
    machine.path("dev/loop-control").mkdir()
    assert machine.capabilities()["loop"] == "/dev/loop-control cannot be opened: Is a directory"
    assert machine.capabilities(uid=1000)["loop"] is None, "a user opens it by sudo, not by himself"


def test_an_old_kernel_has_no_loop_for_us(machine: FakeMachine) -> None:
    reason = machine.capabilities(release="5.4.0-200-generic")["loop"]
    assert reason == "the kernel 5.4.0-200-generic has no LOOP_CONFIGURE; 5.8 or later is needed"


def test_a_kernel_without_the_nbd_module_has_no_nbd(machine: FakeMachine) -> None:
    machine.remove("sys/module/nbd")
    here = machine.capabilities()
    assert here["nbd"] == NO_NBD
    assert here["nbd-netlink"] == "there is no nbd"


def test_a_container_with_its_own_network_has_nbd_but_not_by_netlink(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NbdNetlink, "open", lambda: None)
    here = machine.capabilities()
    assert here["nbd"] is None
    assert here["nbd-netlink"] == (
        "this network namespace does not have the netlink family nbd, as in a container with its own network"
    )


def test_an_nbd_module_that_is_not_loaded_is_told(machine: FakeMachine) -> None:
    machine.remove("sys/module/nbd")
    machine.modules("nbd")
    assert machine.capabilities()["nbd"] == "the module nbd is not loaded"


def test_an_nbd_device_is_enough_to_know_the_driver(machine: FakeMachine) -> None:
    machine.remove("sys/module/nbd")
    machine.path("sys/block/nbd0").mkdir(parents=True)
    assert machine.capabilities()["nbd"] is None


def test_the_module_of_a_longer_name_is_not_taken_for_it(machine: FakeMachine) -> None:
    machine.remove("sys/module/nbd")
    machine.modules("drbd_nbd", "nbd_extra")
    assert machine.capabilities()["nbd"] == NO_NBD


def test_a_kernel_that_loads_no_modules_is_told(machine: FakeMachine) -> None:
    machine.write("proc/sys/kernel/modules_disabled", "1\n")
    assert machine.capabilities()["xfs"] == (
        "the kernel has no xfs: /proc/filesystems does not list it and "
        "loading of modules is switched off (kernel.modules_disabled is 1)"
    )


def test_a_module_that_the_administrator_forbids_is_told(machine: FakeMachine) -> None:
    machine.write("etc/modprobe.d/hardening.conf", "# CIS\ninstall squashfs /bin/false\n")
    here = machine.capabilities()
    assert here["squashfs"] == (
        "the kernel has no squashfs: /proc/filesystems does not list it and "
        "/etc/modprobe.d/hardening.conf forbids to load it"
    )
    assert here["erofs"] is None


@pytest.mark.parametrize(("fstype", "module"), FILESYSTEMS.items())
def test_a_file_system_without_a_module_is_missing(machine: FakeMachine, fstype: str, module: str) -> None:
    machine.modules(*(other for other in FILESYSTEMS.values() if other != module))
    here = machine.capabilities()
    reason = f"the kernel has no {fstype}: /proc/filesystems does not list it and modprobe finds none"
    assert {name: here[name] for name in FILESYSTEMS if here[name]} == {fstype: reason}


def test_a_file_system_that_is_listed_needs_no_module(machine: FakeMachine) -> None:
    machine.modules()
    assert machine.capabilities()["ext4"] is None
    machine.write("proc/filesystems", "\text4dev\n\text2\n")
    reason = machine.capabilities()["ext4"]
    assert reason == "the kernel has no ext4: /proc/filesystems does not list it and modprobe finds none"


def test_a_kernel_without_fuse_is_told(machine: FakeMachine) -> None:
    machine.write("proc/filesystems", "nodev\tfusectl\n\tfuseblk\n")
    reason = machine.capabilities()["fuse"]
    assert reason == "the kernel has no FUSE: /proc/filesystems does not list fuse and modprobe finds none"


def test_fuse_that_the_container_hides_is_told(machine: FakeMachine) -> None:
    machine.remove("dev/fuse")
    assert machine.capabilities()["fuse"] == "/dev/fuse is absent: the container does not show it"
    machine.path("dev/fuse").mkdir()
    assert machine.capabilities()["fuse"] == "/dev/fuse cannot be opened: Is a directory"


def test_fuse_needs_a_storage_daemon_that_exports_by_it(machine: FakeMachine) -> None:
    machine.program("qemu-storage-daemon", b"\x7fELF libc.so.6\0")
    assert machine.capabilities()["fuse"] == "qemu-storage-daemon was built without FUSE exports"
    machine.program("qemu-storage-daemon", b"\x7fELF libc.so.6\0 --export [type=]fuse,id=<id>")
    assert machine.capabilities()["fuse"] is None
    machine.remove_program("qemu-storage-daemon")
    assert machine.capabilities()["fuse"] == "qemu-storage-daemon is not installed"


def test_fuse_needs_fusermount_for_a_user_only(machine: FakeMachine) -> None:
    machine.remove_program("fusermount3")
    assert machine.capabilities()["fuse"] is None
    reason = machine.capabilities(uid=1000)["fuse"]
    assert reason == "fusermount3 is not installed, without which only root mounts by FUSE"


def test_a_kernel_without_the_device_mapper_is_told(machine: FakeMachine) -> None:
    machine.remove("dev/mapper/control")
    reason = machine.capabilities()["device-mapper"]
    assert reason == "/dev/mapper/control is absent: the container does not show it"
    machine.write("proc/misc", "237 loop-control\n")
    reason = machine.capabilities()["device-mapper"]
    assert reason == "the kernel has no device mapper: /proc/misc does not list it and modprobe finds none"
    machine.modules("dm-mod")
    reason = machine.capabilities()["device-mapper"]
    assert reason == "/dev/mapper/control is absent: the module dm_mod is not loaded"


@pytest.mark.parametrize(
    "capability", [c for c in TABLE.values() if c.group == "Building images"], ids=lambda c: c.name
)
def test_a_tool_is_missing_without_its_programs(machine: FakeMachine, capability: Any) -> None:
    assert machine.capabilities()[capability.name] is None
    machine.remove_program(*capability.programs)
    verb = "is" if len(capability.programs) == 1 else "are"
    expected = f"{' and '.join(capability.programs)} {verb} not installed"
    here = machine.capabilities()
    assert here[capability.name] == expected
    assert absent_packages(here) == capability.packages


def test_half_of_a_tool_is_missing_too(machine: FakeMachine) -> None:
    machine.remove_program("mmd")
    assert machine.capabilities()["mtools"] == "mmd is not installed"


def test_the_lab_needs_user_mode_linux_on_x86_64(machine: FakeMachine) -> None:
    machine.remove_program("linux.uml")
    here = machine.capabilities()
    assert here["lab"] == "linux.uml is not installed"
    assert absent_packages(here) == ("user-mode-linux",)
    here = machine.capabilities(architecture="aarch64")
    assert here["lab"] == "User-Mode Linux is packaged for x86_64, and this machine is aarch64"
    assert absent_packages(here) == (), "it is not to be had there"


def test_openat2_is_asked_of_the_kernel(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> None:
        def openat2(*args: object, **kwargs: object) -> int:
            raise OSError(number, "no")

        monkeypatch.setattr(syscalls, "openat2", openat2)

    refuse(errno.ENOSYS)
    reason = machine.capabilities(release="5.4.0-1")["openat2"]
    assert reason == "the kernel 5.4.0-1 has no openat2; 5.6 or later is needed"
    refuse(errno.EPERM)
    reason = machine.capabilities()["openat2"]
    assert reason == "openat2 is refused, as by a container's seccomp filter: no"


def test_libblkid_is_looked_for_by_the_linker(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", no_library)
    assert machine.capabilities()["libblkid"] == "libblkid.so.1 is not installed"


def test_a_probe_that_fails_is_a_reason_and_no_exception(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Machine, name: str) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", "/usr/bin")

    monkeypatch.setattr(Machine, "program", broken)
    reason = machine.capabilities()["mke2fs"]
    assert reason == "it could not be found out: [Errno 13] Permission denied: '/usr/bin'"


def test_a_probe_runs_when_it_is_asked_for_and_once(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(Machine, "program", lambda self, name: asked.append(name))
    here = machine.capabilities()
    assert asked == []
    assert here["mke2fs"] == here["mke2fs"] == "mke2fs is not installed"
    assert asked == ["mke2fs"]


def test_no_probe_on_this_machine_raises_or_answers_with_anything_but_a_sentence() -> None:
    for name, reason in Capabilities().items():
        assert reason is None or reason.strip(), name
        assert "could not be found out" not in (reason or ""), name


def test_a_name_that_no_capability_has_is_an_error_that_lists_them() -> None:
    with pytest.raises(LookupError, match=r"no capability is called 'nbdd'; there are: root, sudo, .*loop"):
        missing("nbdd")


def test_require_raises_with_the_reason_and_the_remedy(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.remove("sys/module/nbd")
    monkeypatch.setattr(capabilities_module, "capabilities", machine.capabilities)
    require("loop", "fuse")
    with pytest.raises(CapabilityMissing) as caught:
        require("loop", "nbd")
    assert caught.value.capability == "nbd"
    assert str(caught.value).startswith(f"nbd is not available here: {NO_NBD}; run `modprobe nbd max_part=0`")


HEADERS = [
    ({}, "imagemount: raw by loop, qcow2 by NBD, as root"),
    ({"uid": 1000}, "imagemount: raw by loop, qcow2 by NBD, by sudo"),
    ({"release": "5.4.0"}, "imagemount: no image can be mounted: the kernel 5.4.0 has no LOOP_CONFIGURE"),
]


@pytest.mark.parametrize(("changes", "expected"), HEADERS)
def test_the_header_says_how_images_are_mounted(machine: FakeMachine, changes: dict[str, Any], expected: str) -> None:
    assert header_line(machine.capabilities(**changes)).startswith(expected)


def test_the_header_says_why_there_is_no_nbd(machine: FakeMachine) -> None:
    machine.remove("sys/module/nbd")
    line = f"imagemount: raw by loop, qcow2 by FUSE + loop (no nbd: {NO_NBD}), as root"
    assert header_line(machine.capabilities()) == line
    machine.remove("dev/fuse")
    assert header_line(machine.capabilities()) == (
        f"imagemount: raw by loop, no qcow2 (no nbd: {NO_NBD}; no fuse: /dev/fuse is absent: "
        "the container does not show it), as root"
    )


def test_the_header_says_that_nothing_can_be_mounted(machine: FakeMachine) -> None:
    here = machine.capabilities(uid=1000)
    start = "imagemount: no image can be mounted: "
    assert header_line(here, sudo="never") == f"{start}the user is not root, and sudo is switched off"
    machine.remove_program("sudo")
    assert header_line(here) == f"{start}sudo is not installed"


def test_the_header_starts_no_process(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_process(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"started {args}")

    monkeypatch.setattr(subprocess, "Popen", no_process)
    assert header_line(Capabilities()).startswith("imagemount: ")
    assert header_line(machine.capabilities(uid=1000)).startswith("imagemount: ")


def test_every_program_that_a_capability_names_has_a_package() -> None:
    for capability in TABLE.values():
        assert all(program in programs.PACKAGES for program in capability.programs), capability.name
