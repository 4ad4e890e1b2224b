"""Check files and --image on images that are really mounted."""

from __future__ import annotations

import json
import platform
import struct
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from pytest_imagemount import Directory, File, Partition, Symlink, build_image, mount_image
from pytest_imagemount.cli import main
from pytest_imagemount.programs import run

if TYPE_CHECKING:
    from pytest_imagemount.factory.content import Device, Hardlink

pytestmark = pytest.mark.needs("privileged", "loop", "ext4", "mke2fs", "libblkid")

CAP_NET_RAW = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)  # linux/capability.h: version 2, effective, permitted
ARCHITECTURE = {"x86_64": "x86-64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
SYSTEM: dict[str, str | bytes | File | Directory | Symlink | Device | Hardlink] = {
    "etc/hostname": "web01\n",
    "etc/os-release": Symlink("/usr/lib/os-release"),
    "usr/lib/os-release": 'ID=example\nVERSION_ID="1"\n',
    "etc/passwd": "root:x:0:0::/root:/bin/sh\nwww:x:33:33::/srv:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nwww:x:33:\n",
    "etc/shadow": File("root:*:1::::::\nwww:!:1::::::\n", mode=0o600),
    "srv/secret": File("for www alone", mode=0o400, uid=33, gid=33, xattrs={"user.origin": b"build-7"}),
    "bin/ping": File(b"x", mode=0o755, xattrs={"security.capability": CAP_NET_RAW}),
    "bin/su": File(b"x", mode=0o4755),
}
CHECKS = """
os: {id: example, version: 1}
files:
  /etc/os-release: {link: /usr/lib/os-release, contains: ID=example}
  /srv/secret: {mode: 0400, owner: www, group: www, xattrs: {user.origin: build-7}, capabilities: none, size: 13}
  /bin/ping: {capabilities: cap_net_raw=ep}
  /etc/shadow: {max-mode: 0640, owner: root}
users: {www: {password: locked}}
free-space: {min: 1 MiB, min-inodes: 10}
rules:
  no-setuid: {except: /bin/su}
  no-world-writable: true
  no-unowned: true
  no-secrets: true
  machine-id-empty: true
"""
COUNT = 12


def system_image(path: Path, *, format: str = "raw") -> Path:
    """A disk with a boot and a root partition."""
    return build_image(
        path,
        format=format,
        table="gpt",
        partitions=[
            Partition(fstype="ext4", size="4M", name="boot", type="xbootldr", content={"loader.conf": "timeout 3\n"}),
            Partition(
                fstype="ext4", size="16M", name="system", label="root", type=f"root-{ARCHITECTURE}", content=SYSTEM
            ),
        ],
    )


@pytest.fixture
def disk(pytester: pytest.Pytester) -> Path:
    return system_image(pytester.path / "disk.raw")


def check_file(pytester: pytest.Pytester, text: str) -> None:
    (pytester.path / "base.imagecheck.yaml").write_text(text)


@pytest.mark.parametrize(("partition", "options"), [("2", ()), ("LABEL=root", ("-n", "2"))])
def test_checks_of_a_mounted_image_pass(
    partition: str, options: tuple[str, ...], pytester: pytest.Pytester, disk: Path
) -> None:
    check_file(pytester, CHECKS)
    result = pytester.runpytest_subprocess("--image=disk.raw", f"--image-partition={partition}", *options)
    result.assert_outcomes(passed=COUNT)


@pytest.mark.parametrize("options", [(), ("--image-partition=root",), ("--image-partition=auto",)])
def test_the_partition_with_the_system_is_found(
    options: tuple[str, ...], pytester: pytest.Pytester, disk: Path
) -> None:
    check_file(pytester, "files: {/etc/hostname: exists}")
    pytester.runpytest_subprocess("--image=disk.raw", *options).assert_outcomes(passed=1)


def test_each_document_may_be_for_another_partition(pytester: pytest.Pytester, disk: Path) -> None:
    boot = "image: {partition: 1}\nfiles: {/loader.conf: {contains: timeout 3}, /etc: absent}\n"
    root = "image: {partition: PARTLABEL=system}\nfiles: {/etc/hostname: exists}\n"
    check_file(pytester, f"{boot}---\n{root}")
    result = pytester.runpytest_subprocess("--image=disk.raw", "-v")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        [
            "*::files:/loader.conf[[]disk.raw:1[]] PASSED*",
            "*::files:/etc/hostname[[]disk.raw:PARTLABEL=system[]] PASSED*",
        ]
    )


def test_a_failure_shows_path_values_image_partition_and_layout(pytester: pytest.Pytester, disk: Path) -> None:
    check_file(pytester, "files: {/srv/secret: {mode: 0440, owner: root, why: policy}}")
    result = pytester.runpytest_subprocess("--image=disk.raw", "--image-partition=2")
    result.assert_outcomes(failed=1)
    assert (
        "file /srv/secret in disk.raw, partition 2 (ext4, ro)\n"
        "  mode   expected 0440\n"
        "         found    0400 (r--------)\n"
        "  owner  expected root\n"
        "         found    www (33)\n"
        "  why: policy\n"
        "  see  base.imagecheck.yaml:1\n"
    ) in result.stdout.str()
    result.stdout.fnmatch_lines(['mounted: partition 2 (ext4, label "root"), ro, by loop as /dev/loop*', "GPT *"])


def test_an_image_that_cannot_be_mounted_is_told_in_full_once(pytester: pytest.Pytester, disk: Path) -> None:
    check_file(pytester, "files: {/a: exists, /b: exists}")
    result = pytester.runpytest_subprocess("--image=disk.raw", "--image-partition=7", "--show-capture=no")
    result.assert_outcomes(failed=2)
    text = result.stdout.str()
    assert text.count("there is no such partition") == 2
    assert text.count("GPT partition table") == 1


def test_images_of_several_formats_are_checked_in_one_run(pytester: pytest.Pytester, disk: Path) -> None:
    system_image(pytester.path / "disk.qcow2", format="qcow2")
    check_file(pytester, "files: {/etc/hostname: exists}\nos: {id: example}\n")
    pytester.makepyfile(
        """
        def test_hostname(image, image_path):
            assert image.source == image_path
            assert (image / "etc/hostname").read_text() == "web01\\n"
        """
    )
    options = ("--image=disk.raw", "--image=disk.qcow2", "--image-partition=2", "--junitxml=out.xml", "-n", "2")
    pytester.runpytest_subprocess(*options).assert_outcomes(passed=6)
    for case in ElementTree.parse(pytester.path / "out.xml").iter("testcase"):
        found = {each.get("name"): each.get("value") for each in case.iter("property")}
        name = str(found["image"])
        assert str(case.get("name")).endswith(f"[{name}]")
        assert (found["image_format"], found["image_partition"]) == (Path(name).suffix[1:], "2")
        assert len(str(found["image_sha256"])) == 64


def test_the_fixture_mounts_an_image_once_for_all_tests_of_a_process(pytester: pytest.Pytester, disk: Path) -> None:
    other = pytester.path / "other.raw"
    other.write_bytes(disk.read_bytes())
    tests = {
        f"test_{letter}": """
        import pytest
        seen = {}

        @pytest.mark.parametrize("n", [1, 2])
        def test_it(image, n, request):
            with open("seen.txt", "a") as file:
                print(image.source.name, id(image), image.root, file=file)
            assert image.mode == "ro"
            with pytest.raises(OSError):
                (image / "new").write_text("x")
        """
        for letter in "ab"
    }
    pytester.makepyfile(**tests)
    result = pytester.runpytest_subprocess("--image=disk.raw", "--image=other.raw", "--image-partition=2")
    result.assert_outcomes(passed=8)
    lines = (pytester.path / "seen.txt").read_text().splitlines()
    assert len(set(lines)) == 2
    assert [line.split()[0] for line in lines] == ["disk.raw"] * 4 + ["other.raw"] * 4


def test_no_more_images_are_mounted_at_once_than_are_in_use(pytester: pytest.Pytester, disk: Path) -> None:
    for number in range(5):
        (pytester.path / f"{number}.raw").write_bytes(disk.read_bytes())
    check_file(pytester, "files: {/etc/hostname: exists}")
    pytester.makepyfile("def test_it(image): assert image.mounted")
    pytester.makeconftest(
        """
        def pytest_runtest_logreport(report):
            if report.when == "call":
                from pathlib import Path
                from pytest_imagemount.pending import LIVE
                assert len(LIVE.all()) <= 2, LIVE.all()
        """
    )
    images = [f"--image={number}.raw" for number in range(5)]
    pytester.runpytest_subprocess(*images, "--image-partition=2").assert_outcomes(passed=10)


def test_a_failed_python_test_shows_what_was_mounted(pytester: pytest.Pytester, disk: Path) -> None:
    pytester.makepyfile("def test_it(image): assert not image.mounted")
    result = pytester.runpytest_subprocess("--image=disk.raw", "--image-partition=2")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*- image disk.raw -*", "mounted: partition 2 *", "GPT *"])


def test_a_path_of_the_image_outside_of_it_is_never_read(pytester: pytest.Pytester) -> None:
    (pytester.path / "canary").write_text("canary")
    content = {"out": Symlink(str(pytester.path / "canary")), "up": Symlink("../../../../etc/passwd")}
    build_image(pytester.path / "disk.raw", fstype="ext4", content=content)
    check_file(pytester, "files: {/out: {contains: canary}, /up: {matches: .}}")
    result = pytester.runpytest_subprocess("--image=disk.raw")
    result.assert_outcomes(failed=2)
    assert result.stdout.str().count("which is not in the image") == 2


def test_the_command_and_the_first_file_that_it_writes(
    disk: Path, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["check", "disk.raw", "--partition", "2"]
    assert main([*command, "--init"]) == 0
    printed = capsys.readouterr().out
    assert main([*command, "--init", "first.imagecheck.yaml"]) == 0
    assert capsys.readouterr().out == "written: first.imagecheck.yaml\n"
    written = (pytester.path / "first.imagecheck.yaml").read_text()
    assert written.replace("first.imagecheck.yaml", "checks.imagecheck.yaml") == printed
    assert "      - /bin/su\n" in written
    assert main([*command, "first.imagecheck.yaml"]) == 0
    assert "disk.raw (raw, partition 2: ext4)" in capsys.readouterr().out
    other = SYSTEM | {"etc/passwd": "root:x:0:0::/root:/bin/bash\n", "bin/su2": File(b"x", mode=0o4755)}
    build_image(
        pytester.path / "other.raw",
        table="gpt",
        partitions=[Partition(fstype="ext4", size="4M"), Partition(fstype="ext4", size="16M", content=other)],
    )
    assert main(["check", "other.raw", "first.imagecheck.yaml", "--partition=2", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    failed = {each["check"] for each in found["checks"] if each["outcome"] == "failed"}
    assert failed == {"users:root", "rules:no-setuid", "partitions:1", "partitions:2"}


def test_the_example_passes(pytester: pytest.Pytester, request: pytest.FixtureRequest) -> None:
    examples = request.config.rootpath / "examples"
    (pytester.path / "checks").mkdir()
    for name in ("build_images.py", "checks/server.imagecheck.yaml"):
        (pytester.path / name).write_bytes((examples / name).read_bytes())
    pytester.runpython(pytester.path / "build_images.py")
    pytester.runpytest_subprocess("checks").assert_outcomes(passed=15)


@pytest.mark.needs("root", "btrfs", "mkfs.btrfs")
def test_the_system_may_be_in_a_subvolume(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    disk = build_image(
        tmp_path / "disk.img",
        table="gpt",
        partitions=[Partition(fstype="ext4", label="boot"), Partition(fstype="btrfs", size=256 << 20)],
    )
    with mount_image(disk, 2, mode="rw") as image:
        run(["btrfs", "subvolume", "create", str(image.root / "root")])
        (image / "root/etc").mkdir()
        (image / "root/etc/os-release").write_text("ID=fedora\n")
    checks = tmp_path / "a.imagecheck.yaml"
    checks.write_text("os: {id: fedora}\nfiles: {/etc/os-release: {type: file}}\n")
    assert main(["check", str(disk), str(checks)]) == 0, capfd.readouterr()
    checks.write_text("image: {partition: 2}\nfiles: {/root/etc/os-release: {type: file}}\n")
    assert main(["check", str(disk), str(checks)]) == 0, capfd.readouterr()
