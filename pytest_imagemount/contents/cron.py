"""What cron runs: crontab(5), ``cron.d``, the folders of scripts, and the users' crontabs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .reading import invalid, is_executable, missing, read_text, regular_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..image_path import ImagePath

_SYSTEM_TABLE = "etc/crontab"
_SYSTEM_FOLDER = "etc/cron.d"
_SCRIPT_FOLDERS = {
    "etc/cron.hourly": "@hourly",
    "etc/cron.daily": "@daily",
    "etc/cron.weekly": "@weekly",
    "etc/cron.monthly": "@monthly",
    "etc/cron.yearly": "@yearly",
    "etc/periodic/15min": "*/15 * * * *",
    "etc/periodic/hourly": "@hourly",
    "etc/periodic/daily": "@daily",
    "etc/periodic/weekly": "@weekly",
    "etc/periodic/monthly": "@monthly",
}
# Debian and busybox; SUSE; Red Hat, whose folder may hold the other two.
_USER_FOLDERS = ("var/spool/cron/crontabs", "etc/crontabs", "var/spool/cron/tabs", "var/spool/cron")

_SETTING = re.compile(r"""\s*("[^"]*"|'[^']*'|[A-Za-z_][A-Za-z0-9_]*)\s*=""")
_TIMES = re.compile(r"@\w+|\S+\s+\S+\s+\S+\s+\S+\s+\S+")
_FIELD = re.compile(r"[0-9A-Za-z*,/~-]+")
_NOT_A_TABLE = re.compile(r"\..*|.*~|#.*|.*\.(rpmsave|rpmorig|rpmnew|swp|dpkg-\w+|ucf-\w+)", re.DOTALL)
_HINT = "crontab(5) has five fields for the time, or a word such as @daily, then the user in system tables, the command"


@dataclass(frozen=True, slots=True)
class CronJob:
    """A job.

    :param schedule: ``17 * * * *`` with single spaces, or ``@daily``; that of a script by its folder
    :param command: as it stands, or the path of a script
    :param source: the file in the image that says so
    """

    schedule: str
    user: str
    command: str
    source: str


def read_cron(root: ImagePath) -> tuple[CronJob, ...]:
    """The jobs: of ``/etc/crontab``, of ``cron.d``, scripts of the folders, users' tables, each in order.

    All files of ``cron.d`` and all scripts count but for backups: Debian's cron skips names with a dot, others run
    them. Environment settings are left out.

    :raises FactsMissing: nothing of cron is in the image
    :raises FactsInvalid: a table has a line that is not as it must be
    """
    if not any((root / place).exists() for place in (_SYSTEM_TABLE, _SYSTEM_FOLDER, *_SCRIPT_FOLDERS, *_USER_FOLDERS)):
        looked = [f"/{place}" for place in (_SYSTEM_TABLE, _SYSTEM_FOLDER, *_SCRIPT_FOLDERS, *_USER_FOLDERS)]
        raise missing(root, "crontab", looked, "cron is not installed; timers of systemd are in image.services")
    jobs = list(_table(root / _SYSTEM_TABLE, None))
    for path in _files(root / _SYSTEM_FOLDER):
        jobs += _table(path, None)
    for folder, schedule in _SCRIPT_FOLDERS.items():
        scripts = (path for path in _files(root / folder) if is_executable(path))
        jobs += [CronJob(schedule, "root", str(path), str(path)) for path in scripts]
    seen: set[ImagePath] = set()  # one folder may be a link to another
    for folder in _USER_FOLDERS:
        for path in _files(root / folder):
            if path.resolve() not in seen:
                seen.add(path.resolve())
                jobs += _table(path, path.name)
    return tuple(jobs)


def _files(folder: ImagePath) -> Iterator[ImagePath]:
    return (path for path in regular_files(folder) if not _NOT_A_TABLE.fullmatch(path.name))


def _table(path: ImagePath, user: str | None) -> Iterator[CronJob]:
    """The jobs of one table; in one without ``user`` each line names its own."""
    for number, line in enumerate((read_text(path) or "").split("\n"), start=1):
        text = line.strip()
        if text and not text.startswith("#") and not _SETTING.match(text):
            yield _job(path, number, text, user)


def _job(path: ImagePath, number: int, text: str, user: str | None) -> CronJob:
    times = _TIMES.match(text)
    fields = times[0].split() if times else []
    if times is None or not (text.startswith("@") or all(_FIELD.fullmatch(field) for field in fields)):
        raise invalid(path, f"does not start with a time: {text!r}", _HINT, number)
    rest = text[times.end() :].strip()
    names = rest.split(maxsplit=1) if user is None else [user, rest]
    if len(names) != 2 or not names[1]:
        raise invalid(path, f"has no command: {text!r}", _HINT, number)
    return CronJob(" ".join(fields), names[0], names[1], str(path))
