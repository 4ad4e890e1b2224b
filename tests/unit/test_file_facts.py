"""Facts of files as values, capabilities and access control lists as text, and reading them from a plain folder."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import struct
from dataclasses import FrozenInstanceError, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_imagemount.file_capabilities import capabilities_text
from pytest_imagemount.file_facts import FileFacts, differences
from pytest_imagemount.xattrs import acl_text, described, read_xattrs

from .trees import mounted, small_tree

if TYPE_CHECKING:
    from pathlib import Path

ALL = (1 << 41) - 1


def capability(permitted: int, inheritable: int = 0, *, effective: bool = True, root: int | None = None) -> bytes:
    """``struct vfs_cap_data``, of revision 3 where it has a root user."""
    low, high = 0xFFFF_FFFF, 32
    magic = (0x0200_0000 if root is None else 0x0300_0000) | effective
    data = struct.pack("<5I", magic, permitted & low, inheritable & low, permitted >> high, inheritable >> high)
    return data if root is None else data + struct.pack("<I", root)


FACTS = FileFacts(
    start="disk.raw:",
    path="/bin/ping",
    type="file",
    mode=0o755,
    uid=0,
    gid=0,
    owner="root",
    group="root",
    size=4,
    sha256="0" * 64,
    xattrs={"security.capability": capability(1 << 13)},
)


# Each text is what getcap -n of libcap 2.66 printed for the value.
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (capability(1 << 13), "cap_net_raw=ep"),
        (capability(1 << 13, 1 << 5, effective=False), "cap_kill=i cap_net_raw+p"),
        (capability(1 << 13 | 1 << 7, 1 << 5 | 1 << 7), "cap_setuid=eip cap_kill+ei cap_net_raw+ep"),
        (capability(ALL), "=ep"),
        (capability(ALL ^ 1 << 3), "=ep cap_fowner-ep"),
        (capability(ALL, ALL & ~3, effective=False), "=ip cap_chown,cap_dac_override-i"),
        (capability(ALL ^ 1, ALL), "=eip cap_chown-p"),
        (capability(0, 1 << 2), "cap_dac_read_search=ei"),
        (capability(0), "="),
        (capability(1 << 41 | 1), "cap_chown=ep 41+ep"),
        (capability(1 << 13, root=1000), "cap_net_raw=ep [rootid=1000]"),
        (capability(1 << 40 | 1 << 39), "cap_bpf,cap_checkpoint_restore=ep"),
    ],
)
def test_capabilities_are_written_as_getcap_does(value: bytes, text: str) -> None:
    assert capabilities_text(value) == text


@pytest.mark.parametrize(
    "value", [b"", b"\0", capability(1)[:-1], capability(1) + b"\0", b"\0\0\0\1" + bytes(8), b"\xff" * 20]
)
def test_what_is_no_capability_is_an_error(value: bytes) -> None:
    with pytest.raises(ValueError, match="no file capability"):
        capabilities_text(value)


@given(st.binary(max_size=40))
def test_no_bytes_of_an_attribute_make_a_message_fail(value: bytes) -> None:
    for name in ("security.capability", "system.posix_acl_access", "security.selinux", "user.\x1b"):
        label, text = described(name, value)
        assert label.isprintable()
        assert text.isprintable()


# What setfacl -m u:1000:r,g:7:rwx wrote for a file of mode 0640.
ACL = bytes.fromhex(
    "0200000001000600ffffffff02000400e803000004000400ffffffff080007000700000010000700ffffffff20000000ffffffff"
)


def test_an_access_control_list_is_written_as_getfacl_does() -> None:
    assert acl_text(ACL) == "user::rw-,user:1000:r--,group::r--,group:7:rwx,mask::rwx,other::---"
    assert described("system.posix_acl_default", ACL)[0] == "default ACL"
    for broken in (b"", ACL[:-1], b"\3" + ACL[1:], ACL[:4] + b"\x40" + ACL[5:]):
        with pytest.raises(ValueError, match=r"access control list"):
            acl_text(broken)


def test_attributes_are_properties_of_the_facts() -> None:
    assert FACTS.capabilities == "cap_net_raw=ep"
    assert FACTS.selinux_context is None
    labelled = replace(FACTS, xattrs={"security.selinux": b"system_u:object_r:etc_t:s0\0"})
    assert labelled.selinux_context == "system_u:object_r:etc_t:s0"
    assert labelled.capabilities == ""


def test_a_file_system_without_attributes_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def listxattr(_: object) -> list[str]:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "listxattr", listxattr)
    assert read_xattrs(0) == {}


def test_an_attribute_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def getxattr(_: object, name: str) -> bytes:
        raise OSError(errno.ENODATA if name == "user.gone" else errno.EINVAL, "why")

    monkeypatch.setattr(os, "listxattr", lambda _: ["user.gone", "security.capability"])
    monkeypatch.setattr(os, "getxattr", getxattr)
    with pytest.raises(OSError, match=r"why, for extended attribute 'security\.capability'"):
        read_xattrs(0)


def test_attributes_beyond_the_bound_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listxattr", lambda _: ["user.a", "user.b"])
    monkeypatch.setattr(os, "getxattr", lambda *_: bytes(100))
    assert len(read_xattrs(0, most=300)) == 2
    with pytest.raises(OSError, match="More than 200 bytes") as caught:
        read_xattrs(0, most=200)
    assert caught.value.errno == errno.E2BIG


# The value


def test_facts_are_equal_where_the_files_are_and_not_where_they_lie() -> None:
    other = replace(FACTS, start="other.raw:", path="/usr/bin/ping", owner="admin", group=None)
    assert other == FACTS
    assert hash(FACTS) == hash(other)
    assert differences(FACTS, other) == []
    assert pickle.loads(pickle.dumps(FACTS)) == FACTS
    with pytest.raises(FrozenInstanceError):
        FACTS.mode = 0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"mode": 0o4755}, [("mode", "0o755", "0o4755")]),
        ({"uid": 7, "owner": "lp"}, [("owner", "root (0)", "lp (7)")]),
        ({"gid": 8, "group": None}, [("group", "root (0)", "8")]),
        ({"size": 5}, [("size", "4 bytes", "5 bytes")]),
        ({"sha256": "1" * 64}, [("sha256", "0000000000000000…", "1111111111111111…")]),
        ({"sha256": None}, [("sha256", "0000000000000000…", "not read")]),
        ({"mtime_ns": 1_577_836_800_000_000_001}, [("mtime", "not read", "2020-01-01T00:00:00.000000001Z")]),
        ({"mtime_ns": 10**30}, [("mtime", "not read", f"{10**21}.000000000")]),
        ({"xattrs": {}}, [("capabilities", "cap_net_raw=ep", "none")]),
        (
            {"xattrs": {"security.capability": capability(2), "user.a\n": b"\0"}},
            [("capabilities", "cap_net_raw=ep", "cap_dac_override=ep"), (r"xattr user.a\n", "none", r"b'\x00'")],
        ),
        (
            {"type": "link", "mode": 0o777, "target": "/x", "size": None, "sha256": None, "xattrs": FACTS.xattrs},
            [("type", "file", "link"), ("mode", "0o755", "0o777")],
        ),
    ],
    ids=str,
)
def test_differences_say_what_and_how_much(change: dict[str, object], expected: list[tuple[str, str, str]]) -> None:
    assert differences(FACTS, replace(FACTS, **change)) == expected  # type: ignore[arg-type]


def test_links_and_devices_differ_by_what_they_point_at() -> None:
    link = FileFacts(path="/a", type="link", mode=0o777, uid=0, gid=0, target="b\x1b[2J")
    assert differences(link, replace(link, target="c")) == [("target", r"b\x1b[2J", "c")]
    disk = FileFacts(path="/dev/sda", type="block", mode=0o660, uid=0, gid=6, device=(8, 0))
    assert differences(disk, replace(disk, device=(8, 1))) == [("device", "8, 0", "8, 1")]


def test_facts_show_themselves_in_one_line_without_control_characters() -> None:
    assert repr(FACTS) == "<FileFacts disk.raw:/bin/ping: file 0o755 root:root 4 bytes>"
    link = FileFacts(path="/\x1b\udcff", type="link", mode=0o777, uid=7, gid=8, target="\r")
    assert repr(link) == r"<FileFacts /\x1b\udcff: link 0o777 7:8 -> \r>"


# Reading


def test_facts_of_each_kind_of_file_are_read(tmp_path: Path) -> None:
    image = mounted(small_tree(tmp_path / "tree"))
    hostname = (image / "etc/hostname").facts()
    assert hostname == FileFacts(
        path="/etc/hostname",
        type="file",
        mode=0o640,
        uid=os.getuid(),
        gid=os.getgid(),
        size=6,
        sha256=hashlib.sha256(b"web01\n").hexdigest(),
    )
    assert (hostname.path, hostname.owner, hostname.group) == ("/etc/hostname", "mary", "staff")
    assert hostname.label == "disk.raw partition 2:/etc/hostname"
    assert (image / "etc/hostname").facts(content=False).sha256 is None
    assert (image / "etc/hostname").facts(times=True).mtime_ns == (image / "etc/hostname").stat().st_mtime_ns

    link = (image / "etc/mtab").facts(follow_symlinks=False)
    assert (link.type, link.target, link.size) == ("link", "/proc/self/mounts", None)
    with pytest.raises(FileNotFoundError) as caught:
        (image / "etc/mtab").facts()
    assert caught.value.filename == "disk.raw partition 2:/etc/mtab"
    folder = (image / "etc").facts()
    assert (folder.type, folder.size, folder.sha256) == ("dir", None, None)
    assert (image / "run/fifo").facts().type == "fifo"


def test_facts_of_an_image_without_accounts_have_no_names(tmp_path: Path) -> None:
    image = mounted(small_tree(tmp_path / "tree"))
    (tmp_path / "tree/etc/passwd").unlink()
    os.mkfifo(tmp_path / "tree/etc/passwd")  # nobody waits for it
    (tmp_path / "tree/etc/group").unlink()
    facts = (image / "etc/hostname").facts()
    assert (facts.owner, facts.group) == (None, None)


def test_a_large_file_is_hashed_in_parts(tmp_path: Path) -> None:
    image = mounted(small_tree(tmp_path / "tree"))
    data = os.urandom(1000) * 2500
    (tmp_path / "tree/large").write_bytes(data)
    assert (image / "large").facts().sha256 == hashlib.sha256(data).hexdigest()
