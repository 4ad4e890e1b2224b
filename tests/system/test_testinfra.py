"""testinfra on a mounted image."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.config import Settings
from pytest_imagemount.errors import CapabilityMissing, CommandNotAllowed, ImageUnmounted
from pytest_imagemount.session import MountSession

from . import debian_root
from .busybox import EMPTY, busybox_system

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from testinfra.host import Host  # type: ignore[import-untyped]

    from pytest_imagemount import MountedImage
    from pytest_imagemount.plugin import MountFactory

    from .test_mounted_image import ImageBuilder

pytestmark = pytest.mark.needs("privileged", "loop", "ext4", "mke2fs")


@pytest.fixture(scope="module")
def session() -> Iterator[MountSession]:
    """Mounts images whose commands may be run."""
    with MountSession(Settings(run="allow"), test="test_testinfra") as made:
        yield made


@pytest.fixture(scope="module")
def disk(image_factory: ImageBuilder) -> Path:
    return image_factory(fstype="ext4", content=busybox_system(*EMPTY))


@pytest.fixture(scope="module")
def image(session: MountSession, disk: Path) -> Iterator[MountedImage]:
    with session.mount(disk) as mounted:
        yield mounted


@pytest.fixture(scope="module")
def host(image: MountedImage) -> Host:
    return image.testinfra()


def test_files_are_those_of_the_image(host: Host) -> None:
    hostname = host.file("/etc/hostname")
    assert (hostname.content_string, hostname.user, hostname.mode) == ("web01\n", "root", 0o644)
    assert host.file("/bin/sh").linked_to == "/bin/busybox"
    assert not host.file("/etc/none").exists
    assert not host.file(__file__).exists


def test_users_are_those_of_the_image(host: Host) -> None:
    www = host.user("www")
    assert (www.uid, www.gid, www.groups) == (33, 33, ["www", "logs"])
    assert not host.user("games").exists


def test_the_system_is_the_images(host: Host) -> None:
    assert host.system_info.type == "linux"
    assert host.system_info.distribution == "busybox"


def test_commands_are_run_by_its_shell(host: Host) -> None:
    done = host.run("echo %s; exit 3", "a b")
    assert (done.rc, done.stdout, done.command) == (3, "a b\n", b"echo 'a b'; exit 3")
    assert host.run("printf 'gr\\303\\274n'").stdout == "grün"


def test_another_user_of_the_image_is_taken_with_no_sudo(host: Host) -> None:
    with host.sudo("www"):
        assert host.check_output("id -un") == "www"
        assert host.run("cat /etc/secret").failed
        with host.sudo():
            assert host.check_output("id -un") == "root"
    assert host.check_output("id -un") == "root"


def test_each_host_is_of_its_own_image(session: MountSession, image_factory: ImageBuilder, image: MountedImage) -> None:
    from testinfra.host import Host

    content = {**busybox_system(*EMPTY), "etc/hostname": "db01\n"}
    with session.mount(image_factory(fstype="ext4", content=content)) as other:
        hosts = [each.testinfra() for each in (image, other, image)]
        assert [each.file("/etc/hostname").content_string for each in hosts] == ["web01\n", "db01\n", "web01\n"]
        assert hosts[0] is not hosts[2]
        assert repr(hosts[1]) == f"<testinfra.host.Host image://{other.source.name}>"
    assert (Host._host_cache, Host._hosts_cache) == ({}, {})
    with pytest.raises(ImageUnmounted):
        hosts[1].run("true")


def test_an_image_without_a_shell_says_so(session: MountSession, image_factory: ImageBuilder) -> None:
    with session.mount(image_factory(fstype="ext4", content={"etc/hostname": ""})) as empty:
        with pytest.raises(RuntimeError, match="the image has no /bin/sh"):
            empty.testinfra().file("/etc/hostname").exists  # noqa: B018  (a property that runs a command)


def test_without_being_allowed_there_is_no_host(disk: Path, mounted_image: MountFactory) -> None:
    with mounted_image(disk) as image, pytest.raises(CommandNotAllowed, match="--imagemount-run=allow"):
        image.testinfra()


def test_without_the_extra_it_is_named(image: MountedImage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "testinfra", None)
    with pytest.raises(CapabilityMissing, match=r"pip install pytest-imagemount\[testinfra\]"):
        image.testinfra()


def test_packages_and_services_of_a_real_system(session: MountSession) -> None:
    with session.mount(debian_root.debian_image()) as image:
        host = image.testinfra()
        ssh = host.package("openssh-server")
        assert ssh.is_installed
        assert ssh.version == image.packages["openssh-server"].version
        assert not host.package("nginx").is_installed
        assert host.service("ssh").is_enabled
        assert not host.service("cron").is_enabled
        assert host.service("e2scrub_reap").is_masked
        assert host.user("probe").shell == "/usr/sbin/nologin"
        assert host.file("/etc/shadow").group == "shadow"
        assert "sshd_config" in host.file("/etc/ssh").listdir()
        assert host.system_info.distribution in ("debian", "ubuntu")
