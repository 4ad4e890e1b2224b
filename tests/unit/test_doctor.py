"""``imagemount doctor``: the report, the exit status, and the packages that it installs."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount import doctor, programs
from pytest_imagemount.capabilities import TABLE, absent_packages
from pytest_imagemount.cli import main
from pytest_imagemount.errors import CapabilityMissing, ProgramFailed
from pytest_imagemount.install import install
from pytest_imagemount.terminal import Style
from tests.unit.fake_machine import FakeMachine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pytest_imagemount.capabilities import Capabilities

PLAIN, PRETTY = Style(colour=False, unicode=False), Style(colour=True, unicode=True)
COMPONENTS = (
    *("btrfs-progs", "cryptsetup-bin", "dosfstools", "e2fsprogs", "erofs-utils", "fdisk", "fuse3", "lz4", "mtools"),
    *("qemu-system-common", "qemu-utils", "squashfs-tools", "user-mode-linux", "util-linux", "xfsprogs", "zstd"),
)
UPDATE = ("apt-get", "update")
INSTALL = ("apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "--yes", "--no-install-recommends")


class Apt:
    """Takes the place of apt: notes what would run, and has no candidate for the packages of ``lacks``."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, ...]] = []
        self.lacks: set[str] = set()
        self.status = {"update": 0, "install": 0}
        self.environment: Mapping[str, str] = {}

    def stream(self, argv: Sequence[str], *, extra_environment: Mapping[str, str]) -> int:
        self.ran.append(tuple(argv))
        self.environment = extra_environment
        return self.status["update" if argv[-1] == "update" else "install"]

    def run(self, argv: Sequence[str]) -> bytes:
        assert tuple(argv[:2]) == ("apt-cache", "policy")
        return "".join(self._policy(package) for package in argv[2:]).encode()

    def _policy(self, package: str) -> str:
        if package in self.lacks and package == "user-mode-linux":
            return ""  # never heard of
        candidate = "(none)" if package in self.lacks else "1:2.3-4"
        return f"{package}:\n  Installed: (none)\n  Candidate: {candidate}\n  Version table:\n     1:2.3-4 500\n"


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path / "root")


@pytest.fixture
def apt(monkeypatch: pytest.MonkeyPatch) -> Apt:
    fake = Apt()
    monkeypatch.setattr(programs, "stream", fake.stream)
    monkeypatch.setattr(programs, "run", fake.run)
    for name in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return fake


def use(monkeypatch: pytest.MonkeyPatch, *machines: Capabilities) -> None:
    """Let ``imagemount doctor`` find ``machines`` one after the other each time that it looks."""
    found = iter(machines)
    monkeypatch.setattr(doctor, "Capabilities", lambda: next(found))


def test_a_good_machine_is_ready(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, machine.capabilities())
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Linux 6.1.0-30-amd64 on x86_64, as root\n")
    assert re.search(
        r"raw +mounted by loop\n.*qcow2 and all other +mounted by NBD\n\nEvery package is installed\.\n$", out
    )


def test_a_machine_without_nbd_is_ready_by_fuse(machine: FakeMachine) -> None:
    machine.remove("sys/module/nbd")
    here = machine.capabilities()
    assert doctor.is_ready(here)
    assert doctor.qcow2_way(here) == "fuse"


@pytest.mark.parametrize("lost", ["dev/loop-control", "usr/bin/qemu-storage-daemon", "dev/fuse"])
def test_a_machine_that_cannot_do_the_main_job_is_not_ready(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    machine.remove("sys/module/nbd")
    machine.remove(lost)
    use(monkeypatch, machine.capabilities())
    assert main(["doctor"]) == 1


@pytest.mark.parametrize("lost", ["libblkid", "openat2"])
def test_what_every_mount_needs_is_part_of_being_ready(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    monkeypatch.setitem(TABLE, lost, TABLE[lost]._replace(probe=lambda here: "it is not there"))
    assert not doctor.is_ready(machine.capabilities())


def test_every_capability_has_a_row_with_its_mark(machine: FakeMachine) -> None:
    machine.remove("sys/module/nbd")
    here = machine.capabilities()
    text = doctor.render(here, PLAIN)
    for name, capability in TABLE.items():
        assert f"\n  {'--' if here[name] else 'ok'} {name:<15}{capability.gives}\n" in text


def test_a_missing_capability_says_why_and_how_to_get_it(machine: FakeMachine) -> None:
    machine.remove("sys/module/nbd")
    text = " ".join(doctor.render(machine.capabilities(), PLAIN).split())
    assert "missing: the kernel has no nbd module: /sys/module/nbd is absent and modprobe finds none" in text
    assert "to have it: run `modprobe nbd max_part=0`; if this kernel has no such module, run the tests in" in text


def test_where_privilege_is_wanting_the_remedy_is_privilege(machine: FakeMachine) -> None:
    machine.remove_program("sudo")
    here = machine.capabilities(uid=1000)
    found = doctor.to_json(here)["capabilities"]
    assert found["loop"]["get"] == found["nbd"]["get"] == TABLE["privileged"].get
    assert found["root"]["get"] == "run as root (a container with --privileged)"
    machine.remove("dev/loop-control")
    assert doctor.to_json(machine.capabilities(uid=1000))["capabilities"]["loop"]["get"] == TABLE["loop"].get


def test_plain_text_is_ascii_without_colour_and_no_line_is_too_long(machine: FakeMachine) -> None:
    machine.remove_all_programs()
    text = doctor.render(machine.capabilities(uid=1000), PLAIN)
    assert text.isascii()
    assert "\x1b" not in text
    table = text[: text.index("Missing packages")]
    assert max(len(line) for line in table.splitlines()) <= 100


def test_a_terminal_gets_marks_and_colour(machine: FakeMachine) -> None:
    machine.remove("sys/module/nbd")
    text = doctor.render(machine.capabilities(), PRETTY)
    assert "  \x1b[32m✓\x1b[0m loop " in text
    assert "  \x1b[31m✗\x1b[0m nbd " in text
    assert re.sub(r"\x1b\[\d+m", "", text) == doctor.render(machine.capabilities(), Style(colour=False, unicode=True))


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream(io.TextIOWrapper):
        def __init__(self, encoding: str, *, terminal: bool) -> None:
            super().__init__(io.BytesIO(), encoding=encoding)
            self.terminal = terminal

        def isatty(self) -> bool:
            return self.terminal

    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert Style.of(Stream("utf-8", terminal=True)) == PRETTY
    assert Style.of(Stream("ascii", terminal=True)) == Style(colour=True, unicode=False)
    assert Style.of(Stream("latin-1", terminal=False)) == PLAIN
    monkeypatch.setenv("TERM", "dumb")
    assert not Style.of(Stream("utf-8", terminal=True)).colour
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Style.of(Stream("utf-8", terminal=True)).colour


def test_the_report_ends_with_the_command_that_installs_what_is_missing(machine: FakeMachine) -> None:
    machine.remove_program("mkfs.xfs", "mcopy", "mmd")
    command = "apt-get install --yes --no-install-recommends mtools xfsprogs"
    assert doctor.render(machine.capabilities(), PLAIN).endswith(f"\n  {command}")
    assert doctor.render(machine.capabilities(uid=1000), PLAIN).endswith(f"\n  sudo {command}")


def test_every_component_is_looked_after(machine: FakeMachine) -> None:
    machine.remove_all_programs()
    assert absent_packages(machine.capabilities()) == COMPONENTS


def test_json_has_everything(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.remove("sys/module/nbd")
    machine.remove_program("mkfs.xfs")
    use(monkeypatch, machine.capabilities(uid=1000))
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["ready"], report["raw"], report["qcow2"]) == (True, "loop", "fuse")
    assert report["machine"] == {"kernel": "6.1.0-30-amd64", "architecture": "x86_64", "uid": 1000}
    assert report["packages"] == ["xfsprogs"]
    assert report["command"] == ["sudo", "apt-get", "install", "--yes", "--no-install-recommends", "xfsprogs"]
    assert list(report["capabilities"]) == list(TABLE)
    assert report["capabilities"]["mkfs.xfs"] == {
        "available": False,
        "reason": "mkfs.xfs is not installed",
        "group": "Building images",
        "gives": "make xfs",
        "get": "install package xfsprogs",
    }


def test_install_updates_the_lists_and_installs_what_is_missing(machine: FakeMachine, apt: Apt) -> None:
    machine.remove_program("mkfs.xfs", "mkfs.vfat")
    assert install(machine.capabilities()) == ("dosfstools", "xfsprogs")
    assert apt.ran == [UPDATE, (*INSTALL, "dosfstools", "xfsprogs")]
    assert apt.environment == {"DEBIAN_FRONTEND": "noninteractive"}


def test_install_goes_by_sudo_for_a_user_and_hands_the_proxy_on(
    machine: FakeMachine, apt: Apt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    machine.remove_program("mkfs.xfs")
    install(machine.capabilities(uid=1000))
    sudo = ("sudo", "-n", "--preserve-env=http_proxy,DEBIAN_FRONTEND")
    assert apt.ran == [(*sudo, *UPDATE), (*sudo, *INSTALL, "xfsprogs")]
    assert apt.environment == {"http_proxy": "http://proxy:3128", "DEBIAN_FRONTEND": "noninteractive"}


def test_install_runs_nothing_where_nothing_is_missing(
    machine: FakeMachine, apt: Apt, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, machine.capabilities())
    assert main(["doctor", "--install"]) == 0
    assert capsys.readouterr().out.startswith("Nothing to install: every package is there.\n\nLinux ")
    assert apt.ran == []


def test_install_reports_on_the_machine_as_it_is_afterwards(
    machine: FakeMachine, apt: Apt, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    after = machine.capabilities()
    assert doctor.is_ready(after)
    bare = FakeMachine(machine.root / "bare")
    bare.remove_all_programs()
    use(monkeypatch, bare.capabilities(), after)
    assert main(["doctor", "--install"]) == 0
    assert apt.ran == [UPDATE, (*INSTALL, *COMPONENTS)]
    assert "Every package is installed." in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--dry-run"], ["--install", "--dry-run"]])
def test_a_dry_run_prints_the_commands_and_runs_none(
    machine: FakeMachine,
    apt: Apt,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
) -> None:
    machine.remove_program("mkfs.xfs")
    use(monkeypatch, machine.capabilities())
    assert main(["doctor", *options]) == 0
    assert capsys.readouterr().out.splitlines() == [" ".join(UPDATE), " ".join((*INSTALL, "xfsprogs"))]
    assert apt.ran == []


def test_install_goes_on_when_the_lists_cannot_be_updated(machine: FakeMachine, apt: Apt) -> None:
    apt.status["update"] = 100
    machine.remove_program("mkfs.xfs")
    assert install(machine.capabilities()) == ("xfsprogs",)


def test_a_package_that_the_distribution_lacks_is_named_and_left_out(
    machine: FakeMachine, apt: Apt, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.remove_program("mkfs.xfs", "linux.uml", "mkfs.erofs")
    apt.lacks = {"user-mode-linux", "erofs-utils"}
    assert install(machine.capabilities()) == ("xfsprogs",)
    assert apt.ran[1] == (*INSTALL, "xfsprogs")
    out = capsys.readouterr().out
    assert "This distribution has no package erofs-utils; left out.\n" in out
    assert "This distribution has no package user-mode-linux; left out.\n" in out
    apt.lacks.add("xfsprogs")
    assert install(machine.capabilities()) == ()
    assert len(apt.ran) == 3, "with no package left, nothing is installed"


def test_an_install_that_fails_is_an_error(machine: FakeMachine, apt: Apt) -> None:
    apt.status["install"] = 100
    machine.remove_program("mkfs.xfs")
    with pytest.raises(ProgramFailed, match="exit status 100") as caught:
        install(machine.capabilities())
    assert caught.value.argv == (*INSTALL, "xfsprogs")


@pytest.mark.parametrize("release", ["ID=fedora\n", 'ID="rocky"\nID_LIKE="rhel centos fedora"\n', ""])
def test_another_distribution_is_told_what_to_find(machine: FakeMachine, apt: Apt, release: str) -> None:
    machine.write("etc/os-release", release)
    machine.remove_program("mkfs.xfs", "mkfs.vfat")
    with pytest.raises(CapabilityMissing) as caught:
        install(machine.capabilities())
    assert "not Debian or Ubuntu" in str(caught.value)
    assert "mkfs.vfat, mkfs.xfs (Debian's packages are dosfstools, xfsprogs)" in str(caught.value)
    assert apt.ran == []


@pytest.mark.parametrize(
    "release", ["ID=debian\n", "ID=ubuntu\nID_LIKE=debian\n", 'ID=mint\nID_LIKE="ubuntu debian"\n']
)
def test_relatives_of_debian_count(machine: FakeMachine, apt: Apt, release: str) -> None:
    machine.write("etc/os-release", release)
    machine.remove_program("mkfs.xfs")
    assert install(machine.capabilities()) == ("xfsprogs",)


def test_a_user_without_sudo_is_given_the_command(machine: FakeMachine, apt: Apt) -> None:
    machine.remove_program("mkfs.xfs", "sudo")
    with pytest.raises(CapabilityMissing) as caught:
        install(machine.capabilities(uid=1000))
    assert "sudo apt-get install --yes --no-install-recommends xfsprogs" in str(caught.value)
    assert apt.ran == []


@pytest.mark.parametrize("option", ["--install", "--dry-run"])
def test_json_does_not_go_with_install(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["doctor", "--json", option])
    assert caught.value.code == 2
    assert "--json goes with neither --install nor --dry-run" in capsys.readouterr().err
