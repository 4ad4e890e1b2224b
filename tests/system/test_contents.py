"""The facts of a real Debian system, read from an image of it, against what its own programs print."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount import FstabEntry, programs
from pytest_imagemount.contents.versions import satisfies

from . import debian_root

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from pytest_imagemount import MountedImage

    MountFactory = Callable[[Path], AbstractContextManager[MountedImage]]

pytestmark = pytest.mark.needs("privileged", "loop", "ext4", "mke2fs", "root")


@pytest.fixture(scope="module")
def image(module_mounted_image: MountFactory) -> MountedImage:
    return module_mounted_image(debian_root.debian_image()).__enter__()


def in_root(image: MountedImage, *argv: str) -> list[str]:
    """The lines that a program of the system prints, run in the image."""
    return programs.run(["chroot", str(image.root), *argv]).decode().splitlines()


def systemctl(image: MountedImage, *argv: str) -> list[str]:
    arguments = [f"--root={image.root}", "--no-pager", "--no-legend", "--full", *argv]
    return (
        programs.run(["systemctl", *arguments], extra_environment={"SYSTEMD_LOG_LEVEL": "emerg"}).decode().split("\n")
    )


def test_packages_are_those_that_dpkg_query_prints(image: MountedImage) -> None:
    form = "${binary:Package}\t${Package}\t${Version}\t${Architecture}\t${db:Status-Status}\n"
    printed = [line.split("\t") for line in in_root(image, "dpkg-query", "--show", f"--showformat={form}")]
    installed = {name: (version, arch) for _, name, version, arch, state in printed if state == "installed"}
    assert {name: (package.version, package.arch) for name, package in image.packages.items()} == installed
    assert {package.manager for package in image.packages.values()} == {"dpkg"}
    assert all(image.packages[binary].name == name for binary, name, _, _, state in printed if state == "installed")


def test_a_removed_package_that_left_its_configuration_is_not_installed(image: MountedImage) -> None:
    states = in_root(image, "dpkg-query", "--show", "--showformat=${Status}", "logrotate")
    assert states == ["deinstall ok config-files"]
    assert "logrotate" not in image.packages
    assert in_root(image, "dpkg-query", "--show", "--showformat=${Status}", "cron") == ["hold ok installed"]
    assert "cron" in image.packages


def test_files_of_packages_are_those_that_dpkg_lists(image: MountedImage) -> None:
    names = list(image.packages)
    listed = "\n".join(in_root(image, "dpkg-query", "--listfiles", *names)).split("\n\n")
    assert len(listed) == len(names)
    for name, block in zip(names, listed, strict=True):
        lines = [line for line in block.split("\n") if line.startswith("/") and line != "/."]
        assert list(image.packages[name].files()) == lines, name


def test_a_constraint_holds_as_dpkg_says(image: MountedImage) -> None:
    package = image.packages["libc6"]
    assert package.satisfies(f"= {package.version}, >> 2.0")
    assert satisfies("dpkg", package.version, f"<< {package.version}~") is False


def test_services_are_those_that_systemctl_lists(image: MountedImage) -> None:
    printed = [line.split() for line in systemctl(image, "list-unit-files") if line]
    expected = {name: (state, None if preset == "-" else preset) for name, state, preset in printed}
    assert {name: (each.state, each.preset) for name, each in image.services.items()} == expected
    assert {"enabled", "disabled", "static", "masked", "alias", "indirect"} <= {state for state, _ in expected.values()}


def test_instances_have_the_state_that_is_enabled_says(image: MountedImage) -> None:
    for name in ("getty@tty1.service", "getty@tty2.service", "probe@two.service", "probe@one.service", "ssh.service"):
        printed = programs.run(["/bin/sh", "-c", f"systemctl --root={image.root} is-enabled {name} || true"]).decode()
        assert image.services[name].state == printed.strip(), name
    assert image.services["probe@two.service"].wanted_by == ("multi-user.target",)
    assert image.services["probe@two.service"].path == "/etc/systemd/system/probe@.service"


def test_a_service_has_the_file_and_the_units_that_want_it(image: MountedImage) -> None:
    probe = image.services["probe.service"]
    assert (probe.state, probe.enabled) == ("enabled", True)
    assert (probe.wanted_by, probe.path) == (("multi-user.target",), "/etc/systemd/system/probe.service")
    assert image.services["cron.service"].preset == "disabled"
    assert image.services["apt-daily.service"].state == "disabled"  # by the drop-in alone
    assert image.services["sshd.service"].path == image.services["ssh.service"].path
    with pytest.raises(KeyError):
        image.services["nothing@here.service"]


def test_users_are_those_that_getent_prints(image: MountedImage) -> None:
    printed = [line.split(":") for line in in_root(image, "getent", "passwd")]
    expected = {name: (int(uid), int(gid), gecos, home, shell) for name, _, uid, gid, gecos, home, shell in printed}
    users = {user.name: (user.uid, user.gid, user.gecos, user.home, user.shell) for user in image.users.values()}
    assert users == expected
    assert list(image.users) == list(expected)


def test_passwords_are_as_passwd_says(image: MountedImage) -> None:
    # The third letter of `passwd --status`: locked, none at all, or usable.
    letters = {"locked": "L", "none": "L", "empty": "NP", "set": "P"}
    printed = dict(line.split()[:2] for line in in_root(image, "passwd", "--status", "--all"))
    assert {name: letters[user.password] for name, user in image.users.items()} == printed
    states = {name: image.users[name].password for name in ("root", "probe", "probe2", "games")}
    assert states == {"root": "none", "probe": "locked", "probe2": "set", "games": "empty"}


def test_groups_are_those_that_getent_prints(image: MountedImage) -> None:
    printed = [line.split(":") for line in in_root(image, "getent", "group")]
    expected = {name: (int(gid), tuple(filter(None, members.split(",")))) for name, _, gid, members in printed}
    assert {group.name: (group.gid, group.members) for group in image.groups.values()} == expected
    assert image.groups["users"].members == ("probe2",)


def test_the_operating_system_is_as_its_programs_say(image: MountedImage) -> None:
    shell = 'for name in ID VERSION_ID NAME PRETTY_NAME HOME_URL; do eval "echo \\$$name"; done'
    said = in_root(image, "/bin/sh", "-c", f". /etc/os-release; {shell}")
    facts = image.os
    assert [facts.id, facts.version_id or "", facts.name, facts.pretty_name, facts.fields["HOME_URL"]] == said
    assert [facts.architecture] == in_root(image, "uname", "-m")
    assert (facts.hostname, facts.timezone, facts.locale) == ("probe", "Europe/Vienna", "C.UTF-8")
    assert (facts.machine_id, facts.kernels) == ("empty", ())


def test_fstab_is_as_findmnt_reads_it(image: MountedImage) -> None:
    columns = "SOURCE,TARGET,FSTYPE,OPTIONS,FREQ,PASSNO"
    table = str(image.root / "etc/fstab")
    printed = programs.run(["findmnt", "--tab-file", table, "--json", "--list", "--output", columns]).decode()
    entries = [(each["source"], each["target"], each["fstype"]) for each in json.loads(printed)["filesystems"]]
    assert [(entry.source, entry.target, entry.fstype) for entry in image.fstab] == entries
    assert image.fstab[0] == FstabEntry("UUID=5a0", "/", "ext4", ("defaults", "errors=remount-ro"), 0, 1)
    assert image.fstab[1] == FstabEntry("LABEL=my data", "/srv/my data", "xfs", ("noatime",), 0, 0)


def test_host_keys_have_the_fingerprints_that_ssh_keygen_prints(image: MountedImage) -> None:
    assert {key.private for key in image.ssh_host_keys} == {True, False}
    # Printed when the image was made: ssh-keygen needs /dev/null, and the mount has no devices.
    printed = [line.split()[1] for line in (image / "root/fingerprints").read_text().splitlines()]
    assert [key.fingerprint for key in image.ssh_host_keys if not key.private] == printed
    assert [key.fingerprint for key in image.ssh_host_keys if key.private] == printed
    found = in_root(image, "/bin/sh", "-c", "ls /etc/ssh/ssh_host_*")
    assert [key.path for key in image.ssh_host_keys] == sorted(found)
    assert {key.type for key in image.ssh_host_keys} == {"ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256"}


def test_cron_runs_what_its_files_say(image: MountedImage) -> None:
    jobs = image.cron
    assert {job.user for job in jobs} == {"root"}
    daily = in_root(image, "run-parts", "--test", "/etc/cron.daily")
    assert [job.command for job in jobs if job.source.startswith("/etc/cron.daily/")] == daily
    text = (image / "etc/crontab").read_text()
    lines = [re.sub(r"\s+", " ", line) for line in text.splitlines() if re.match(r"[0-9*]", line)]
    system = [f"{job.schedule} {job.user} {job.command}" for job in jobs if job.source == "/etc/crontab"]
    assert [re.sub(r"\s+", " ", line) for line in system] == lines


def test_the_kernel_command_line_is_that_for_new_kernels(image: MountedImage) -> None:
    assert image.kernel_cmdline == "root=LABEL=probe ro"
