"""Secrets of encrypted volumes, on their way from the test to the helper: in memory only."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from .engine.reader import FileReader
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
        if key_file is not None:
            if passphrase is not None:
                raise _refused(key_file, "passphrase is given too")
            return cls(_read(key_file))
        if passphrase is None:
            return None
        return cls(passphrase.encode() if isinstance(passphrase, str) else passphrase)

    def open(self) -> int:
        """A descriptor, the caller's to close, of a file in memory that holds it."""
        descriptor = os.memfd_create("imagemount-key", os.MFD_CLOEXEC)
        os.write(descriptor, self.content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # O_NONBLOCK: a FIFO would wait for a writer
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise _refused(path, "it is no regular file")
            content = FileReader(fd, _LONGEST + 1).pread(_LONGEST + 1, 0)
        finally:
            os.close(fd)
    except OSError as error:
        raise _refused(path, f"it cannot be read: {error.strerror}") from None
    if not 0 < len(content) <= _LONGEST:
        raise _refused(path, f"a key has 1 to {_LONGEST} bytes")
    return content


def _refused(path: str | os.PathLike[str], reason: str) -> RequestInvalid:
    return RequestInvalid(argument="key_file", value=repr(os.fspath(path)), reason=reason)
