"""imgedit: sets the host name of a system in a disk image, and puts files into it."""

import argparse
import re
import sys
from pathlib import Path

from pytest_imagemount import ImageMountError, mount_image

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class EditError(Exception):
    """The image cannot be changed as was asked for."""


def set_hostname(image, name):
    """Set the host name in /etc/hostname, and where the old one stands in /etc/hosts."""
    if not NAME.fullmatch(name):
        raise EditError(f"{name!r} is no host name")
    file, hosts = image / "etc/hostname", image / "etc/hosts"
    if not file.parent.is_dir():
        raise EditError("there is no /etc: choose another partition by --partition")
    old = file.read_text().strip() if file.exists() else ""
    file.write_text(f"{name}\n")
    if old and hosts.exists():
        lines = [re.sub(rf"(?<!\S){re.escape(old)}(?!\S)", name, line) for line in hosts.read_text().split("\n")]
        hosts.write_text("\n".join(lines))


def add_file(image, source, target, mode):
    """Copy the file ``source`` of this machine to ``target`` in the image; folders on the way are made."""
    place = image / target
    if place.is_dir():
        place /= source.name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(source.read_bytes())
    place.chmod(mode)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="imgedit", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    hostname = commands.add_parser("hostname", help="set the host name")
    add = commands.add_parser("add", help="put a file into the image")
    for command in (hostname, add):
        command.add_argument("image", type=Path)
        command.add_argument("--partition", default="auto", help="number, or LABEL=…, UUID=…, PARTLABEL=…")
    hostname.add_argument("name")
    add.add_argument("source", type=Path)
    add.add_argument("target")
    add.add_argument("--mode", type=lambda text: int(text, 8), default=0o644, help="in octal")
    args = parser.parse_args(arguments)
    try:
        with mount_image(args.image.absolute(), args.partition, mode="rw") as image:
            if args.command == "hostname":
                set_hostname(image, args.name)
            else:
                add_file(image, args.source, args.target, args.mode)
    except (EditError, ImageMountError, OSError) as error:
        print(f"imgedit: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
