"""Secrets of encrypted volumes, on their way from the test to the helper: in memory only."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from .errors import RequestInvalid

_LONGEST = 8 << 20
"""Bytes of the longest key: cryptsetup(8) reads no more of a key file either."""


@dataclass(frozen=True, slots=True)
class Key:
    """The bytes that open a volume. They show in no repr."""

    content: bytes = field(repr=False)

    @classmethod
    def of(cls, passphrase: str | bytes | None, key_file: str | os.PathLike[str] | None) -> Key | None:
        """What the caller gave, None for nothing; a file is read at once, with the caller's own privilege.

        :raises RequestInvalid: both were given, or the file cannot be read, is empty, or longer than 8 MiB
        """
        if passphrase is not None and key_file is not None:
            raise RequestInvalid(argument="key_file", value=repr(os.fspath(key_file)), reason="passphrase is given too")
        if passphrase is not None:
            return cls(passphrase.encode() if isinstance(passphrase, str) else passphrase)
        if key_file is None:
            return None
        try:
            with Path(key_file).open("rb") as file:
                content = file.read(_LONGEST + 1)
        except OSError as error:
            reason = f"it cannot be read: {error.strerror}"
            raise RequestInvalid(argument="key_file", value=repr(os.fspath(key_file)), reason=reason) from None
        if not 0 < len(content) <= _LONGEST:
            reason = f"a key has 1 to {_LONGEST} bytes"
            raise RequestInvalid(argument="key_file", value=repr(os.fspath(key_file)), reason=reason)
        return cls(content)

    def open(self) -> int:
        """A descriptor, the caller's to close, of a file in memory that holds it."""
        descriptor = os.memfd_create("imagemount-key", os.MFD_CLOEXEC)
        os.write(descriptor, self.content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor
