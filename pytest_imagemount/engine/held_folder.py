"""A folder that its process reaches only by a descriptor.

The user whom a helper serves owns the folder in which the helper's own lies, and so may rename that at any time, or put
another in its place. A path through it would let the user choose where root mounts, or what root removes. So it is
opened once, at its making, and every system call gets ``/proc/self/fd/N/NAME``, which no renaming diverts.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from ..errors import CapabilityMissing
from .processes import ProcessId

ALIVE = "alive"
"""Name of the file in the folder that its process keeps locked (flock) as long as it lives."""
TOKEN = re.compile(r"\d{1,10}-[0-9a-f]{8}")
"""Form of a token: the process id and a random number."""
UNFINISHED = ".new-"
"""What comes before the name of a folder that is being made or removed."""
_MAX_NOTE = 4096
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class AliveNote:
    """What stands in the file ``alive``. The folder's name may be changed by its user, this not: it has the token."""

    token: str
    process: ProcessId

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """:raises ValueError: this is no such note"""
        try:
            value = json.loads(data)
            note = cls(value["token"], ProcessId(**value["process"]))
        except (TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"not a note of ours: {error!r}") from None
        if not isinstance(note.token, str) or not TOKEN.fullmatch(note.token):
            raise ValueError("its token is not of our form")
        if not all(isinstance(number, int) for number in (note.process.pid, note.process.start)):
            raise ValueError("its process is not of our form")
        return note


class HeldFolder:
    """The folder of this process, made in ``parent``; others see it only once it is locked.

    ``token`` marks everything in the kernel that belongs to it. ``call`` is the folder for system calls, ``path`` for
    people.

    :raises CapabilityMissing: it cannot be made, or somebody meddles with it
    """

    def __init__(self, parent: Path) -> None:
        self.token = f"{os.getpid()}-{os.urandom(4).hex()}"
        self._descriptors: list[int] = []
        if not Path("/proc/self/fd").is_dir():
            hint = "mount it: `mount -t proc proc /proc`"
            raise CapabilityMissing(capability="proc", reason="/proc is not mounted", hint=hint)
        try:
            self._make(parent)
        except OSError as error:
            self.release()
            reason = f"no folder can be made in {parent}: {error.strerror or error}"
            raise CapabilityMissing(capability="run folder", reason=reason, hint="see its owner and its mode") from None

    @property
    def call(self) -> Path:
        """The folder, for system calls of this process."""
        return self._call

    @property
    def path(self) -> Path:
        """Where the folder is now, for people and other processes."""
        return self._call.readlink()

    def remove(self) -> None:
        """Remove the folder if nothing is in it but what was made here; twice is fine.

        :raises OSError: something is left in it
        """
        if not self._descriptors:
            return
        with suppress(FileNotFoundError):  # its user has removed or renamed it: nothing of ours is in it
            _remove(self.path, self.fd, self._parent, self.token)
        self.release()

    def release(self) -> None:
        """Give up the descriptors and the lock. What is in the folder is then for others to reclaim."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _make(self, parent: Path) -> None:
        self._parent = self._keep(os.open(parent, _DIRECTORY))
        unfinished = UNFINISHED + self.token
        os.mkdir(unfinished, 0o755, dir_fd=self._parent)
        self.fd = self._keep(os.open(unfinished, _DIRECTORY, dir_fd=self._parent))
        self._call = Path(f"/proc/self/fd/{self.fd}")
        if os.fstat(self.fd).st_uid != os.geteuid():
            raise PermissionError(None, f"{unfinished} was exchanged")
        os.fchmod(self.fd, 0o755)  # whatever the umask
        # O_EXCL: if the folder of another process was put in place of this one, it has this file already.
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        alive = self._keep(os.open(ALIVE, flags, 0o600, dir_fd=self.fd))
        fcntl.flock(alive, fcntl.LOCK_EX)
        os.write(alive, json.dumps(asdict(AliveNote(self.token, ProcessId.of(os.getpid())))).encode())
        os.rename(unfinished, self.token, src_dir_fd=self._parent, dst_dir_fd=self._parent)

    def _keep(self, descriptor: int) -> int:
        self._descriptors.append(descriptor)
        return descriptor


class AbandonedFolder:
    """A folder that a dead process of the same user left, open and locked by this process until :meth:`close`.

    Use :func:`take_over` to get one.
    """

    def __init__(self, name: str, parent: int, fd: int, alive: int, note: AliveNote) -> None:
        self.name, self.fd, self.note = name, fd, note
        self._parent, self._alive = parent, alive

    @property
    def call(self) -> Path:
        """The folder, for system calls of this process."""
        return Path(f"/proc/self/fd/{self.fd}")

    @property
    def path(self) -> Path:
        """Where the folder is now, for people and for comparing with the kernel's tables."""
        return self.call.readlink()

    def remove(self) -> None:
        """Remove the folder, which must be empty but for the file ``alive``.

        :raises OSError: it is not
        """
        _remove(self.path, self.fd, self._parent, self.note.token)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)
        os.close(self._alive)


class NotTaken(Exception):
    """Why a folder was not taken over. ``harmless``: its process lives, or the folder is gone: nothing to tell."""

    def __init__(self, reason: str, *, harmless: bool = False) -> None:
        self.reason, self.harmless = reason, harmless
        super().__init__(reason)


def take_over(name: str, parent: int) -> AbandonedFolder:
    """The folder ``name`` in the folder open at ``parent``, if its process is dead and it is truly one of ours.

    :raises NotTaken: saying why not
    """
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        raise NotTaken("it is gone", harmless=True) from None
    except OSError as error:
        raise NotTaken(f"it is not a folder that can be opened: {error.strerror}") from None
    alive = -1
    try:
        require_ours(fd)
        try:
            alive = _open_alive(fd)
        except OSError as error:
            raise NotTaken(f"its file {ALIVE} cannot be opened: {error.strerror}") from None
        note = _lock(alive)
    except BaseException:
        os.close(fd)
        if alive >= 0:
            os.close(alive)
        raise
    return AbandonedFolder(name, parent, fd, alive, note)


def _open_alive(folder: int) -> int:
    return os.open(ALIVE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)


def is_held(folder: int) -> bool:
    """Whether a process holds the folder open at ``folder``, in whatever pid namespace it is. False where this user may
    not look."""
    try:
        alive = _open_alive(folder)
    except OSError:
        return False
    try:
        fcntl.flock(alive, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(alive)
    return False


def _remove(path: Path, fd: int, parent: int, token: str) -> None:
    if left := sorted(set(os.listdir(fd)) - {ALIVE}):
        raise OSError(f"there is still {', '.join(left)} in {path}")
    # A folder under its real name has the file ``alive``, always: whoever finds one without it knows that it is forged.
    unfinished = UNFINISHED + token
    os.rename(path.name, unfinished, src_dir_fd=parent, dst_dir_fd=parent)
    with suppress(FileNotFoundError):
        os.unlink(ALIVE, dir_fd=fd)
    os.rmdir(unfinished, dir_fd=parent)


def sweep_unfinished(name: str, parent: int) -> None:
    """Remove a folder whose process died while it made or removed it: nothing is in it but, perhaps, ``alive``.

    :raises OSError: there is more in it
    :raises NotTaken: it is none of ours, or its process lives, in another pid namespace
    """
    fd = os.open(name, _DIRECTORY, dir_fd=parent)
    alive = -1
    try:
        require_ours(fd)
        with suppress(FileNotFoundError):
            alive = _open_alive(fd)
        if alive >= 0:  # only under its lock, and so never in a folder that has got its real name meanwhile
            try:
                fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise NotTaken("its process lives", harmless=True) from None
            os.unlink(ALIVE, dir_fd=fd)
        os.rmdir(name, dir_fd=parent)
    finally:
        os.close(fd)
        if alive >= 0:
            os.close(alive)


def require_ours(fd: int) -> None:
    """:raises NotTaken: what is open at ``fd`` was not made by a process of this user, or others may write in it"""
    status = os.fstat(fd)
    if status.st_uid != os.geteuid():
        raise NotTaken(f"it belongs to user {status.st_uid}: no helper made it")
    if stat.S_IMODE(status.st_mode) & 0o022:
        raise NotTaken("others may write in it: no helper made it so")


def _lock(alive: int) -> AliveNote:
    status = os.fstat(alive)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_size > _MAX_NOTE:
        raise NotTaken(f"its file {ALIVE} is not one of ours")
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise NotTaken("its process lives", harmless=True) from None
    if os.fstat(alive).st_nlink == 0:
        raise NotTaken("it is gone", harmless=True)
    try:
        return AliveNote.parse(os.pread(alive, _MAX_NOTE, 0))
    except ValueError as error:
        raise NotTaken(f"its file {ALIVE} is not one of ours: {error}") from None
