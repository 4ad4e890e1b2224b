"""What a command of an image cannot do, on a file system whose owners the kernel can map and on one where it cannot.

Linux before 6.2 cannot map those of squashfs; so the second way of being confined is that of the lab.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.config import Settings
from pytest_imagemount.session import MountSession

from .busybox import EMPTY, busybox_system, shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_imagemount import MountedImage

    from .test_mounted_image import ImageBuilder

pytestmark = pytest.mark.needs("privileged", "loop")

TREES = [
    pytest.param("ext4", id="ext4", marks=pytest.mark.needs("ext4", "mke2fs")),
    pytest.param("squashfs", id="squashfs", marks=pytest.mark.needs("squashfs", "mksquashfs")),
]


@pytest.fixture(scope="module", params=TREES)
def any_image(request: pytest.FixtureRequest, image_factory: ImageBuilder) -> Iterator[MountedImage]:
    disk = image_factory(fstype=request.param, content=busybox_system(*EMPTY))
    with MountSession(Settings(run="allow"), test="test_running_confined") as session, session.mount(disk) as mounted:
        yield mounted


def test_a_command_gives_its_status_and_what_it_wrote(any_image: MountedImage) -> None:
    done = any_image.run(["/bin/ls", "/etc"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "group\nhostname\nos-release\npasswd\nsecret\n", "")
    done = any_image.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done.returncode, done.stdout_bytes, done.stderr_bytes) == (3, b"out\n", b"err\n")
    assert repr(done).endswith(r"exit status 3; stdout 'out\n'; stderr 'err\n'>")


@pytest.mark.parametrize("user", ["www", 33])
def test_a_command_runs_as_a_user_of_the_image(any_image: MountedImage, user: str | int) -> None:
    assert any_image.run(["id"], user=user).stdout == "uid=33(www) gid=33(www) groups=33(www),44(logs)\n"
    assert shell(any_image, "echo $HOME; cat /var/www/page", user=user) == "/var/www\n<h1>"
    assert "Permission denied" in any_image.run(["cat", "/etc/secret"], user=user).stderr


def test_root_reads_what_only_root_may_read(any_image: MountedImage) -> None:
    assert any_image.run(["cat", "/etc/secret"]).stdout == "only for root\n"
    assert any_image.run(["stat", "-c", "%u:%g", "/var/www/page", "/etc/secret"]).stdout == "33:33\n0:0\n"


def test_it_is_read_only(any_image: MountedImage) -> None:
    done = any_image.run(["sh", "-c", "echo x >/etc/hostname; echo x >/bin/busybox; mkdir /new; ls /"])
    assert done.stderr.count("Read-only file system") == 3
    assert "new" not in done.stdout.split()


def test_it_has_folders_of_its_own_to_write_to(any_image: MountedImage) -> None:
    script = (
        "for f in /tmp /run /dev/shm; do echo $f >$f/x && cat $f/x; done; echo gone >/dev/null; wc -c </dev/zero & "
    )
    assert shell(any_image, script) == "/tmp\n/run\n/dev/shm\n"
    assert shell(any_image, "ls /tmp /run /dev/shm").split() == ["/dev/shm:", "/run:", "/tmp:"]
    assert [path.name for path in (any_image / "tmp").iterdir()] == []


def test_it_has_no_capability_and_gets_none(any_image: MountedImage) -> None:
    refusals = {
        "mknod /tmp/disk b 7 0": "Operation not permitted",
        "mount -t tmpfs none /tmp": "permission denied",
        "umount /tmp": "Operation not permitted",
        "chroot /tmp /bin/true": "Operation not permitted",
        "hostname other": "Operation not permitted",
        "unshare -r true": "No space left on device",
        "unshare -m true": "Operation not permitted",
    }
    script = "\n".join(f"{attempt} 2>&1 && echo done; echo --" for attempt in refusals)
    answers = shell(any_image, script).split("--\n")[:-1]
    for (attempt, refusal), answer in zip(refusals.items(), answers, strict=True):
        assert refusal in answer, attempt
        assert "done" not in answer, attempt
    if any_image.fstype == "ext4":
        status = shell(any_image, "cat /proc/self/status")
        found = dict(line.split(":\t", 1) for line in status.splitlines() if line.startswith(("Cap", "NoNewPrivs")))
        assert found == {
            **{f"Cap{kind}": "0000000000000000" for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")},
            "NoNewPrivs": "1",
        }


def test_it_sees_no_process_and_no_file_of_the_machine(any_image: MountedImage, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("outside")
    script = f"""
        for root in '' /.. /../../.. /proc/1/root /proc/1/cwd /proc/self/root/.. /proc/self/fd/3/.. /dev/fd/4; do
            cat $root{canary} && echo "$root reached it"
        done
        cat /proc/1/exe >/dev/null && echo 'exe is open'
        echo x >/proc/sys/kernel/core_pattern && echo 'core_pattern is open'
        echo b >/proc/sysrq-trigger && echo 'sysrq is open'
        kill -0 1 && echo 'may signal its init'
        true
    """
    printed = shell(any_image, script)
    assert printed.replace("may signal its init\n", "") == ""
    pids = [int(name) for name in shell(any_image, "ls /proc").split() if name.isdigit()]
    assert len(pids) <= 4
    assert max(pids, default=0) < 10
    assert shell(any_image, "ls /sys /boot 2>/dev/null; true").split() in ([], ["/sys:"])


def test_its_first_process_cannot_be_ended_from_inside(any_image: MountedImage) -> None:
    assert shell(any_image, "kill -9 1; kill -TERM 1; sleep 0.05; echo still here") == "still here\n"
