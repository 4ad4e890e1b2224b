"""A small real Debian (or Ubuntu) system as an ext4 image, made by debootstrap once and kept under ``.cache``.

The packages come from where this machine's apt takes them.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest
from filelock import FileLock

from pytest_imagemount import programs
from pytest_imagemount.errors import ProgramFailed
from pytest_imagemount.factory import build_image

CACHE = Path(__file__).parents[2] / ".cache"
PACKAGES = ("systemd", "systemd-sysv", "dbus", "openssh-server", "cron", "logrotate", "libpam-systemd")
_NOT_NEEDED = ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man")
_SCRIPTS = Path("/usr/share/debootstrap/scripts")

FILES = {
    "etc/hostname": "# the name\nprobe\n",
    "etc/machine-id": "",
    "etc/fstab": "# device\nUUID=5a0 / ext4 defaults,errors=remount-ro 0 1\n"
    "LABEL=my\\040data /srv/my\\040data xfs noatime\n",
    "etc/kernel/cmdline": "root=LABEL=probe  ro\n",
    "etc/default/locale": "LANG=C.UTF-8\n",
    "etc/systemd/system-preset/10-probe.preset": "disable cron.*\nenable getty@.service tty1\n",
    "etc/systemd/system/probe.service": "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
    "etc/systemd/system/probe@.service": "[Service]\nExecStart=/bin/true\n[Install]\n"
    "WantedBy=multi-user.target\nDefaultInstance=one\nAlias=sonde@.service\n",
    "usr/lib/systemd/system/apt-daily.service.d/probe.conf": "[Install]\nWantedBy=multi-user.target\n",
}
_COMMANDS = (
    "systemctl enable probe.service probe@two.service ssh.service",
    "systemctl disable cron.service",
    "systemctl mask e2scrub_reap.service",
    "useradd --system --comment 'A probe' --shell /usr/sbin/nologin probe",
    "useradd --create-home --groups users,adm --password '$6$salt$hash' probe2",
    "passwd --delete games",
    "apt-mark hold cron",
    "dpkg --remove logrotate",
    "for key in /etc/ssh/ssh_host_*.pub; do ssh-keygen -l -f $key; done > /root/fingerprints",
    "ln -sf /usr/share/zoneinfo/Europe/Vienna /etc/localtime",
)


def debian_image() -> Path:
    """The image; made when it is missing, which takes about a minute.

    Skips the test, or fails it where IMAGEMOUNT_REQUIRE names ``debian-root``, if this machine cannot make it.
    """
    recipe = repr((PACKAGES, _NOT_NEEDED, FILES, _COMMANDS))
    image = CACHE / f"debian-root-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.ext4"
    if image.exists():
        return image
    if os.getuid() != 0:
        cannot("only root can make it")
    if programs.find_program("debootstrap") is None:
        cannot("install package debootstrap")
    CACHE.mkdir(exist_ok=True)
    with FileLock(CACHE / "debian-root.lock"):
        if not image.exists():
            _build(image)
    return image


def cannot(reason: str, need: str = "debian-root") -> NoReturn:
    """Skip the test for ``reason``, or fail it where IMAGEMOUNT_REQUIRE names ``need``."""
    if os.environ.get("IMAGEMOUNT_REQUIRE", "") == "all" or need in os.environ.get("IMAGEMOUNT_REQUIRE", "").split(","):
        pytest.fail(f"IMAGEMOUNT_REQUIRE names {need}, which is missing: {reason}", pytrace=False)
    pytest.skip(f"needs {need}: {reason}")


def _build(image: Path) -> None:
    release, source = _release_and_source()
    with tempfile.TemporaryDirectory(prefix="debian-root-", dir=CACHE) as folder:
        root, unfinished = Path(folder) / "root", Path(folder) / "image.ext4"
        _debootstrap(release, source, root)
        for name, text in FILES.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for command in _COMMANDS:
            programs.run(["chroot", str(root), "/bin/sh", "-c", command])
        for name in _NOT_NEEDED:
            shutil.rmtree(root / name, ignore_errors=True)
            (root / name).mkdir(parents=True)
        build_image(unfinished, fstype="ext4", content=root)
        for outdated in CACHE.glob("debian-root-*.ext4"):
            outdated.unlink()
        unfinished.replace(image)


def _debootstrap(release: str, source: str, root: Path) -> None:
    options = ["--variant=minbase", f"--include={','.join(PACKAGES)}"]
    try:
        programs.run(["debootstrap", *options, release, str(root), source], extra_environment=_proxies(), timeout=900)
    except ProgramFailed as error:
        cannot(str(error))


def _release_and_source() -> tuple[str, str]:
    """The release and the address from which apt takes the packages of this machine's own system."""
    try:
        listing = programs.run(
            ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI) $(COMPONENT)", "Created-By: Packages"]
        ).decode()
    except ProgramFailed as error:
        cannot(str(error))
    for line in listing.splitlines():
        release, address, component = line.split()
        if component == "main" and (_SCRIPTS / release).exists():
            return release, _without_list(address)
    cannot(f"apt has no source of a release that debootstrap knows:\n{listing}")


def _without_list(address: str) -> str:
    """``address``, or, of a list of mirrors in a file, the first that is in it."""
    if not address.startswith("mirror+file:"):
        return address
    listed = re.search(r"https?://\S+", Path(address.removeprefix("mirror+file:").rstrip("/")).read_text())
    assert listed, address
    return listed[0]


def _proxies() -> dict[str, str]:
    names = ("http_proxy", "https_proxy", "no_proxy")
    return {name: os.environ[name] for name in names if name in os.environ}
