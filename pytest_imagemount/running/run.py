"""``image.run([...])``: the arguments, the user, the refusals."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import CommandFailed, CommandNotAllowed, ImageUnmounted, RequestInvalid
from ..pure_image_path import PureImagePath
from .account import account_of
from .command import Command
from .completed import Completed
from .refusals import why_not_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..mounted_image import MountedImage
    from .starter import Starter

    Word = str | os.PathLike[str] | PureImagePath

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "TERM": "dumb",
    # Nothing of the image is booted: systemctl then reads the unit files itself.
    "SYSTEMD_OFFLINE": "1",
}


def run(
    image: MountedImage,
    argv: Sequence[Word],
    *,
    timeout: float = 30.0,
    input: str | bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Word = "/",
    user: str | int = "root",
    check: bool = False,
    network: bool = False,
    writable: bool = False,
) -> Completed:
    """See :meth:`~..mounted_image.MountedImage.run`."""
    name = image.source.name
    words = _words(argv)
    starter = require_allowed(image, words)
    if not image.mounted:
        raise ImageUnmounted(image=name, path=words[0])
    if writable and image.mode == "ro":
        reason = "the image is mounted with mode='ro'; mode='overlay' throws away what is written, 'rw' keeps it"
        raise RequestInvalid(argument="writable", value="True", reason=reason)
    account = account_of(image / "/", user)
    environment = _assignments({**_ENVIRONMENT, "HOME": account.home, **(env or {})})
    data = input.encode("utf-8", "surrogateescape") if isinstance(input, str) else input
    folder = _word(cwd)
    command = Command(name, words, timeout, data)
    outcome = command.run(
        starter.start,
        argv=words,
        environment=environment,
        folder=folder,
        user=account.user,
        group=account.group,
        groups=tuple(map(str, account.groups)),
        network=network,
        writable=writable,
    )
    if outcome.failed:
        reason, hint = why_not_run(image / "/", folder, outcome)
        raise CommandFailed(image=name, argv=words, returncode=None, reason=reason, hint=hint)
    if outcome.status is None:
        reason, hint = "it was ended before its time", "the image was unmounted meanwhile, or the helper is gone"
        raise CommandFailed(image=name, argv=words, returncode=None, reason=reason, hint=hint)
    done = Completed(words, os.waitstatus_to_exitcode(outcome.status), *command.output)
    if check:
        done.check(name)
    return done


def require_allowed(image: MountedImage, argv: tuple[str, ...]) -> Starter:
    """What starts commands of ``image``.

    :raises CommandNotAllowed: the user has not allowed it
    """
    starter = image._starter
    if starter is None or not starter.allowed:
        raise CommandNotAllowed(image=image.source.name, argv=argv)
    return starter


def _words(argv: Sequence[Word]) -> tuple[str, ...]:
    if isinstance(argv, str | bytes | os.PathLike | PureImagePath) or not argv:
        reason = "must be a list, a command and its arguments: ['/bin/ls', '/etc']"
        raise RequestInvalid(argument="argv", value=repr(argv), reason=reason)
    words = tuple(map(_word, argv))
    if not words[0]:
        raise RequestInvalid(argument="argv", value=repr(argv), reason="the name of the command is empty")
    return words


def _assignments(environment: Mapping[str, str]) -> tuple[str, ...]:
    for name, value in environment.items():
        if not name or "=" in name or not isinstance(value, str):
            reason = "must be a name without '=', and a text"
            raise RequestInvalid(argument="env", value=f"{{{name!r}: {value!r}}}", reason=reason)
    return tuple(f"{name}={value}" for name, value in environment.items())


def _word(word: Word) -> str:
    """As the command sees it: a path of the image as it is inside."""
    return str(word) if isinstance(word, PureImagePath) else os.fspath(word)
