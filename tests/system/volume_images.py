"""Images with volumes in them, made by the volumes' own tools: what the tests compare with is never our own work."""

from __future__ import annotations

import hashlib
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_imagemount.engine.volumes import dm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    ImageBuilder = Callable[..., Path]

MIB = 1 << 20
PASSPHRASE = "correct horse"
FILES = {"etc/hostname": "vault\n"}

_ENVIRONMENT = {**os.environ, "DM_DISABLE_UDEV": "1", "LC_ALL": "C.UTF-8"}
# No devices but those named, no archive in /etc, no messages to a daemon.
_LVM_CONFIG = " ".join(
    (
        "backup{backup=0 archive=0}",
        'global{locking_dir=/run/lock/lvm-test event_activation=0 use_lvmlockd=0 thin_check_executable=""}',
        "activation{monitoring=0 thin_pool_autoextend_threshold=100 udev_sync=0 udev_rules=0}",
        "devices{use_devicesfile=0 obtain_device_list_from_udev=0}",
    )
)


def run(*argv: str | Path, stdin: bytes = b"") -> str:
    """Run a program; its stdout."""
    done = subprocess.run(argv, input=stdin, capture_output=True, env=_ENVIRONMENT, check=False)
    assert not done.returncode, f"{argv}: {done.stderr.decode()}"
    return done.stdout.decode()


def lvm(*argv: str | Path) -> str:
    """Run an LVM command."""
    for kind in ("raid", "mirror", "thin-pool", "snapshot"):
        dm.has_target(kind)  # the lab's kernel has modules that no modprobe finds; it loads them itself when asked so
    return run(argv[0], "--config", _LVM_CONFIG, *argv[1:])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_at(path: Path, offset: int, content: bytes) -> None:
    """Write over what is there."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def blank(path: Path, size: int) -> Path:
    """A sparse file of ``size`` bytes."""
    with path.open("xb") as file:
        file.truncate(size)
    return path


@contextmanager
def loops(*places: tuple[Path, int, int | None]) -> Iterator[list[Path]]:
    """A loop device for each file, from an offset on, of a size."""
    made: list[Path] = []
    try:
        for path, offset, size in places:
            limit = [] if size is None else [f"--sizelimit={size}"]
            made.append(Path(run("losetup", "--find", "--show", f"--offset={offset}", *limit, path).strip()))
        yield made
    finally:
        for device in made:
            run("losetup", "--detach", device)


def luks_format(
    path: Path | str, *, kind: str = "luks2", passphrase: str = PASSPHRASE, extra: Sequence[str] = ()
) -> None:
    """Make it a LUKS volume, with as little work for the key as cryptsetup allows."""
    argv = ["cryptsetup", "luksFormat", "--type", kind, "--batch-mode", "--pbkdf-force-iterations", "1000"]
    if kind == "luks2":
        # Sectors as small as those of the file systems that are copied into it.
        argv += ["--pbkdf", "pbkdf2", "--sector-size", "512"]
    run(*argv, *extra, "--key-file=-", path, stdin=passphrase.encode())


@contextmanager
def luks_open(path: Path | str, *, passphrase: str = PASSPHRASE) -> Iterator[Path]:
    """The device of what is encrypted in ``path``."""
    run("cryptsetup", "open", "--key-file=-", path, "made-for-a-test", stdin=passphrase.encode())
    try:
        yield Path("/dev/mapper/made-for-a-test")
    finally:
        run("cryptsetup", "close", "made-for-a-test")


def copy_to(device: Path, source: Path, *, offset: int = 0) -> None:
    """Write the content of ``source`` to a device."""
    with device.open("r+b") as file:
        file.seek(offset)
        file.write(source.read_bytes())
        file.flush()
        os.fsync(file.fileno())
