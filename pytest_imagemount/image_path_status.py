"""What an image path says of its file without opening it: status, type, extended attributes."""

from __future__ import annotations

import errno
import os
import stat

from .pure_image_path import PureImagePath
from .xattrs import capabilities_of, selinux_context_of


class ImagePathStatus(PureImagePath):
    """The part of :class:`.ImagePath` that asks and does not open."""

    __slots__ = ()

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """As os.stat."""
        return self._root.status(self._path, follow=follow_symlinks)

    def lstat(self) -> os.stat_result:
        """As os.lstat: of a link itself."""
        return self.stat(follow_symlinks=False)

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is such a file; of a link, whether there is what it points at."""
        return self._mode(follow_symlinks) != 0

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a regular file, or a link to one."""
        return stat.S_ISREG(self._mode(follow_symlinks))

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a folder, or a link to one."""
        return stat.S_ISDIR(self._mode(follow_symlinks))

    def is_symlink(self) -> bool:
        """Whether it is a symbolic link, dangling or not."""
        return stat.S_ISLNK(self._mode(follow=False))

    def is_fifo(self) -> bool:
        """Whether it is a FIFO, or a link to one."""
        return stat.S_ISFIFO(self._mode())

    def is_socket(self) -> bool:
        """Whether it is a socket, or a link to one."""
        return stat.S_ISSOCK(self._mode())

    def is_block_device(self) -> bool:
        """Whether it is a block device node, or a link to one."""
        return stat.S_ISBLK(self._mode())

    def is_char_device(self) -> bool:
        """Whether it is a character device node, or a link to one."""
        return stat.S_ISCHR(self._mode())

    def is_mount(self) -> bool:
        """Whether another file system (or btrfs subvolume) starts here; true for the image's root."""
        if not self.is_dir(follow_symlinks=False):
            return False
        here, above = self.stat(), (self / "..").stat()
        return here.st_dev != above.st_dev or here.st_ino == above.st_ino

    def is_junction(self) -> bool:
        """False: Linux has none."""
        return False

    def samefile(self, other: str | os.PathLike[str]) -> bool:
        """Whether both are one file, by device and inode."""
        return os.path.samestat(self.stat(), self._inside(other).stat())

    def xattrs(self, *, follow_symlinks: bool = True) -> dict[str, bytes]:
        """Every extended attribute by its full name, those that only root may see included; empty where it has none."""
        (found,) = self._root.xattrs([str(self)], follow=follow_symlinks)
        return found

    def capabilities(self, *, follow_symlinks: bool = True) -> str:
        """Of an executable, as getcap prints them: ``cap_net_raw=ep``; empty where the file has none."""
        return capabilities_of(self.xattrs(follow_symlinks=follow_symlinks))

    def selinux_context(self, *, follow_symlinks: bool = True) -> str | None:
        """``system_u:object_r:etc_t:s0``; None where the file has no label.

        On a machine that runs SELinux itself the kernel gives one to every file, ``unlabeled_t`` where it has none.
        """
        return selinux_context_of(self.xattrs(follow_symlinks=follow_symlinks))

    def _mode(self, follow: bool = True) -> int:
        """st_mode, which is never 0 for a file; 0 where there is none."""
        try:
            return self.stat(follow_symlinks=follow).st_mode
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return 0
            raise
