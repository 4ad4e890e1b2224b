"""Host keys of OpenSSH and Dropbear."""

from __future__ import annotations

import base64
import hashlib
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.contents.ssh_host_keys import SshHostKey, read_ssh_host_keys

from .system_tree import Link, make_tree

if TYPE_CHECKING:
    from pathlib import Path


def text(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


BLOB = text(b"ssh-ed25519") + text(bytes(range(32)))
PUBLIC = b"ssh-ed25519 " + base64.b64encode(BLOB) + b" root@host\n"
FINGERPRINT = "SHA256:" + base64.b64encode(hashlib.sha256(BLOB).digest()).decode().rstrip("=")


def armoured(kind: bytes, data: bytes) -> bytes:
    return b"-----BEGIN %bPRIVATE KEY-----\n%b-----END %bPRIVATE KEY-----\n" % (kind, base64.encodebytes(data), kind)


OPENSSH = armoured(
    b"OPENSSH ",
    b"openssh-key-v1\0" + text(b"none") * 2 + text(b"") + struct.pack(">I", 1) + text(BLOB) + text(b"secret"),
)


def keys(folder: Path, files: dict[str, str | bytes | Link]) -> tuple[SshHostKey, ...]:
    return read_ssh_host_keys(make_tree(folder, files))


def test_a_private_key_shows_its_public_half(tmp_path: Path) -> None:
    path = "/etc/ssh/ssh_host_ed25519_key"
    assert keys(tmp_path, {path[1:]: OPENSSH, f"{path[1:]}.pub": PUBLIC}) == (
        SshHostKey(path, "ssh-ed25519", True, FINGERPRINT),
        SshHostKey(f"{path}.pub", "ssh-ed25519", False, FINGERPRINT),
    )


@pytest.mark.parametrize(("kind", "name"), [(b"RSA ", "ssh-rsa"), (b"EC ", "ecdsa"), (b"", "unknown")])
def test_a_key_in_pem_has_its_fingerprint_from_the_public_file(kind: bytes, name: str, tmp_path: Path) -> None:
    path = "etc/ssh/ssh_host_rsa_key"
    (alone,) = keys(tmp_path / "a", {path: armoured(kind, b"0" * 40)})
    assert (alone.type, alone.private, alone.fingerprint) == (name, True, None)
    private, _ = keys(tmp_path / "b", {path: armoured(kind, b"0" * 40), f"{path}.pub": PUBLIC})
    assert (private.type, private.fingerprint) == ("ssh-ed25519", FINGERPRINT)


@pytest.mark.parametrize("content", [b"", b"garbage", b"ssh-ed25519 !!!", OPENSSH[:60], armoured(b"OPENSSH ", b"x")])
def test_a_broken_key_is_still_a_key(content: bytes, tmp_path: Path) -> None:
    (key,) = keys(tmp_path, {"etc/ssh/ssh_host_rsa_key": content})
    assert (key.type, key.private, key.fingerprint) == ("unknown", True, None)


def test_a_key_that_sshd_config_names(tmp_path: Path) -> None:
    files: dict[str, str | bytes | Link] = {
        "etc/ssh/sshd_config": "#HostKey /etc/no\nPort 22\nhostkey /srv/keys/host\n",
        "etc/ssh/sshd_config.d/x.conf": 'HostKey "/srv/keys/second"\nHostKey none\n',
        "srv/keys/host": OPENSSH,
        "srv/keys/host.pub": PUBLIC,
        "srv/keys/second": OPENSSH,
        "etc/no": OPENSSH,
        "etc/ssh/moduli": "x",
    }
    assert [key.path for key in keys(tmp_path, files)] == ["/srv/keys/host", "/srv/keys/host.pub", "/srv/keys/second"]


def test_keys_of_dropbear(tmp_path: Path) -> None:
    files: dict[str, str | bytes | Link] = {
        "etc/dropbear/dropbear_rsa_host_key": text(b"ssh-rsa") + b"numbers",
        "etc/dropbear/other": "x",
    }
    assert keys(tmp_path, files) == (SshHostKey("/etc/dropbear/dropbear_rsa_host_key", "ssh-rsa", True, None),)


def test_an_image_without_host_keys_has_none(tmp_path: Path) -> None:
    assert keys(tmp_path, {"etc/ssh/ssh_config": ""}) == ()


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
@pytest.mark.parametrize("options", [["-t", "ed25519"], ["-t", "ecdsa"], ["-t", "rsa", "-b", "1024", "-m", "PEM"]])
def test_fingerprints_are_those_that_ssh_keygen_prints(options: list[str], tmp_path: Path) -> None:
    path = tmp_path / "etc/ssh/ssh_host_x_key"
    path.parent.mkdir(parents=True)
    subprocess.run(["ssh-keygen", "-q", "-N", "", *options, "-f", str(path)], check=True, capture_output=True)
    printed = subprocess.run(["ssh-keygen", "-l", "-f", str(path)], check=True, capture_output=True).stdout.split()
    found = keys(tmp_path, {})
    assert [key.fingerprint for key in found] == [printed[1].decode()] * 2
