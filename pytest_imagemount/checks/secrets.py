"""Secrets that a build leaves behind: private keys, credentials, shell history."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase, translate
from typing import TYPE_CHECKING

from .tree import walk_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..mounted_image import MountedImage
    from .tree import TreeEntry

_HEAD = 64 * 1024
_LARGEST = 1 << 20  # no key and no file of credentials is larger

_PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-[0-9]")

_CREDENTIALS = {
    "*/.aws/credentials": "AWS credentials",
    "*/.aws/sso/cache/*.json": "AWS tokens",
    "*/.azure/*token*": "Azure tokens",
    "*/.azure/msal_*": "Azure tokens",
    "*/.config/gcloud/credentials.db": "Google Cloud credentials",
    "*/.config/gcloud/application_default_credentials.json": "Google Cloud credentials",
    "*/.config/gcloud/access_tokens.db": "Google Cloud tokens",
    "*/.config/gh/hosts.yml": "GitHub token",
    "*/.config/rclone/rclone.conf": "credentials of rclone",
    "*/.git-credentials": "credentials of git",
    "*/.gnupg/private-keys-v1.d/*.key": "private key of GnuPG",
    "*/.gnupg/secring.gpg": "private key of GnuPG",
    "*/.kube/config": "credentials of Kubernetes",
    "*/.my.cnf": "credentials of MySQL",
    "*/.netrc": "credentials of .netrc",
    "*/.pgpass": "credentials of PostgreSQL",
    "*/.pypirc": "credentials of PyPI",
    "*/.vault-token": "token of Vault",
    "*/.terraform.d/credentials.tfrc.json": "token of Terraform",
}
"""Files that are credentials wherever they are, if there is anything in them."""

_ENVIRONMENT = (
    rb"(?im)^[ \t]*(?:export[ \t]+)?(?=\w*(?:secret|password|token|api_?key))\w+[ \t]*="
    rb"(?:#|[ \t]*(?:[^\s\"'#]|[\"'][^\s\"']))"
)
_MARKED = {
    "*/.aws/config": (rb"(?m)^[ \t]*aws_(?:secret_access_key|session_token)\s*=", "AWS credentials"),
    "*/.docker/config.json": (rb'"auth"\s*:\s*"[^"]+"', "credentials of a container registry"),
    "*/.config/containers/auth.json": (rb'"auth"\s*:\s*"[^"]+"', "credentials of a container registry"),
    "*/.npmrc": (rb"_(?:authToken|auth|password)\s*=", "token of npm"),
    "/etc/apt/auth.conf*": (rb"(?m)^[ \t]*machine\s", "credentials of apt"),
    "*/.cargo/credentials*": (rb"token\s*=", "token of cargo"),
    "*/pip.conf": (rb"://[^/\s:@]+:[^/\s@]+@", "password in a URL"),
    "*/.env": (_ENVIRONMENT, "secrets in an environment file"),
}
"""Files that are harmless without the text that follows: a regular expression whose time grows with the text alone,
since a text can be made so that another one takes hours."""

_HISTORIES = ("*/.*_history", "*/.*histfile", "*/.lesshst", "*/.viminfo", "*/.zhistory", "*/fish/fish_history")

_KEY_NAMES = ("*.pem", "*.key", "*.ppk", "*_rsa", "*_dsa", "*_ecdsa", "*_ed25519", "*_key", "*.p8")
_KEY_FOLDERS = ("/root/", "/home/", "/etc/", "/srv/", "/opt/", "/var/lib/", "/var/www/", "/boot/", "/tmp/", "/var/tmp/")
"""Where keys are looked for in every small file, whatever its name; elsewhere by :data:`_KEY_NAMES`."""

_HOST_KEY = "/etc/ssh/ssh_host_*_key"

_NAMED = re.compile("|".join(map(translate, (*_CREDENTIALS, *_MARKED, *_HISTORIES, *_KEY_NAMES))))
"""All of the names above at once: most files of a system have none of them."""


def find_secrets(image: MountedImage) -> Iterator[tuple[str, str]]:
    """Path and kind of every file that holds a secret; SSH host keys are left to their own rule.

    :raises OSError: a file cannot be read, so that nobody could say what is in it
    """
    for entry in walk_tree(image):
        if entry.is_file and entry.size > 0 and (kind := _secret(image, entry)):
            yield entry.path, kind


def _secret(image: MountedImage, entry: TreeEntry) -> str | None:
    path = entry.path
    if not path.startswith(_KEY_FOLDERS) and not _NAMED.fullmatch(path):
        return None
    for pattern, kind in _CREDENTIALS.items():
        if fnmatchcase(path, pattern):
            return kind
    if any(fnmatchcase(path, pattern) for pattern in _HISTORIES):
        return "history of commands or files"
    if entry.size > _LARGEST:
        return None
    marks = [(text, kind) for pattern, (text, kind) in _MARKED.items() if fnmatchcase(path, pattern)]
    may_be_key = path.startswith(_KEY_FOLDERS) or any(fnmatchcase(path, pattern) for pattern in _KEY_NAMES)
    if not marks and (not may_be_key or fnmatchcase(path, _HOST_KEY)):
        return None
    with (image / path).open("rb") as file:
        head = file.read(_HEAD)
    for text, kind in marks:
        if re.search(text, head):
            return kind
    return "private key" if may_be_key and _PRIVATE_KEY.search(head) else None
