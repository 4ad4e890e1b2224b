"""The host keys of OpenSSH and Dropbear: an image that is copied to many machines should have none."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .reading import entries, read_bytes, read_text, regular_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..image_path import ImagePath

_SSH_FOLDER = "etc/ssh"
_SSH_NAME = re.compile(r"ssh_host_.*key(\.pub)?|ssh_host_key(\.pub)?")
_DROPBEAR_FOLDERS = ("etc/dropbear", "var/lib/dropbear", "var/db/dropbear")
_CONFIGURED = re.compile(r"^[ \t]*HostKey[ \t=]+\"?([^\s\"#]+)", re.IGNORECASE | re.MULTILINE)

_OPENSSH_MAGIC = b"openssh-key-v1\0"
_ARMOUR, _ARMOUR_END = re.compile(rb"-----BEGIN ([A-Z ]*)PRIVATE KEY-----\s"), b"-----END"
_PEM_TYPES = {"RSA": "ssh-rsa", "DSA": "ssh-dss", "EC": "ecdsa"}
_SMALL = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class SshHostKey:
    """A host key.

    :param path: in the image
    :param type: ``ssh-ed25519``, ``ssh-rsa``, ``ecdsa-sha2-nistp256``; ``ecdsa`` where the curve is not told, and
        ``unknown`` where the file is none of the known forms, an empty one for example
    :param private: whether it is the secret half
    :param fingerprint: ``SHA256:…`` as ``ssh-keygen -l`` prints it; None where neither the file nor the ``.pub`` file
        next to it shows the public half
    """

    path: str
    type: str
    private: bool
    fingerprint: str | None


def read_ssh_host_keys(root: ImagePath) -> tuple[SshHostKey, ...]:
    """The keys by path: ``/etc/ssh/ssh_host_*``, those that sshd_config names, and Dropbear's. None is a good answer.

    Nothing of a secret half is kept.
    """
    found: dict[str, SshHostKey] = {}
    for path in _openssh_files(root):
        data = read_bytes(path, _SMALL)
        if data is not None:
            found[str(path)] = _openssh_key(path, data)
    for folder in _DROPBEAR_FOLDERS:
        for path in regular_files(root / folder):
            if path.name.startswith("dropbear_") and path.name.endswith("_host_key"):
                found[str(path)] = _dropbear_key(path)
    return tuple(key for _, key in sorted(found.items()))


def _openssh_files(root: ImagePath) -> Iterator[ImagePath]:
    folder = root / _SSH_FOLDER
    for entry in entries(folder):
        if _SSH_NAME.fullmatch(entry.name) and (folder / entry.name).is_file():
            yield folder / entry.name
    configurations = [folder / "sshd_config", *regular_files(folder / "sshd_config.d")]
    for configuration in configurations:
        for match in _CONFIGURED.finditer(read_text(configuration, _SMALL) or ""):
            for path in (root / match[1], root / f"{match[1]}.pub"):
                if match[1].startswith("/") and path.is_file():
                    yield path


def _openssh_key(path: ImagePath, data: bytes) -> SshHostKey:
    if path.suffix == ".pub":
        blob = _public_blob(data)
        return SshHostKey(str(path), _type_of(blob), False, _fingerprint(blob))
    armour = _ARMOUR.search(data)
    end = data.find(_ARMOUR_END, armour.end()) if armour else -1
    blob = _public_in_private(data[armour.end() : end]) if armour and end >= 0 else None
    if blob is None:
        blob = _public_blob(read_bytes(path.with_name(f"{path.name}.pub"), _SMALL) or b"")
    kind = _type_of(blob)
    if armour and end >= 0 and blob is None:
        kind = _PEM_TYPES.get(armour[1].decode().strip(), "unknown")
    return SshHostKey(str(path), kind, True, _fingerprint(blob))


def _public_blob(line: bytes) -> bytes | None:
    """The key of a line ``type base64 comment``."""
    fields = line.split()
    return _decode(fields[1]) if len(fields) >= 2 else None


def _public_in_private(encoded: bytes) -> bytes | None:
    """The public half, which OpenSSH's own form has in clear: magic, cipher, kdf, its options, number of keys, key.

    Source: ``PROTOCOL.key`` of OpenSSH.
    """
    data = _decode(b"".join(encoded.split())) or b""
    if not data.startswith(_OPENSSH_MAGIC):
        return None
    place = len(_OPENSSH_MAGIC)
    for _ in range(3):
        part = _string(data, place)
        if part is None:
            return None
        place += 4 + len(part)
    return _string(data, place + 4)


def _dropbear_key(path: ImagePath) -> SshHostKey:
    """Of Dropbear's own form only the type is read, which stands first."""
    kind = _string(read_bytes(path, _SMALL) or b"", 0)
    return SshHostKey(str(path), _name(kind), True, None)


def _type_of(blob: bytes | None) -> str:
    return _name(_string(blob, 0)) if blob else "unknown"


def _name(text: bytes | None) -> str:
    return text.decode() if text and re.fullmatch(rb"[\w@.-]{1,64}", text) else "unknown"


def _fingerprint(blob: bytes | None) -> str | None:
    if not blob:
        return None
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _decode(text: bytes) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None


def _string(data: bytes, place: int) -> bytes | None:
    """The text at ``place`` with its length of four bytes before it."""
    if place + 4 > len(data):
        return None
    (length,) = struct.unpack_from(">I", data, place)
    text = data[place + 4 : place + 4 + length]
    return text if len(text) == length else None
