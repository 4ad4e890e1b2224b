from __future__ import annotations

from pathlib import Path

from pytest_imagemount.engine.mountinfo import mounts

TEXT = rb"""22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
36 22 7:3 / /run/a\040b\134c ro,nosuid,nodev,relatime shared:1 master:2 - ext4 /dev/loop3 ro,errors=continue
37 22 0:30 / /none rw - tmpfs  rw
"""


def test_fields_are_told_apart_whatever_the_optional_ones() -> None:
    root, image, nameless = mounts(TEXT)
    assert (root.mount_id, root.device, root.target) == (22, "254:0", Path("/"))
    assert (image.fstype, image.source, image.device) == ("ext4", "/dev/loop3", "7:3")
    assert {"ro", "nosuid", "errors=continue"} <= image.options
    assert nameless.source == ""


def test_escaped_paths_are_read() -> None:
    assert mounts(TEXT)[1].target == Path("/run/a b\\c")


def test_names_that_any_user_may_give_to_a_mount_are_read() -> None:
    (entry,) = mounts(b"38 22 0:31 / /home/u/a\rb\xff rw - fuse.\xfe\r \rname rw\n")
    assert (entry.target, entry.fstype, entry.source) == (Path("/home/u/a\rb\udcff"), "fuse.\udcfe\r", "\rname")


def test_this_machine_has_a_root() -> None:
    assert Path("/") in [entry.target for entry in mounts()]
