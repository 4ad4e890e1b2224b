"""Builds an appliance's root file system: build.py [--careless] [--manifest FILE] OUTPUT."""

import argparse
import os
import random
import time
from pathlib import Path

from pytest_imagemount import File, Symlink, build_image, mount_image

VERSION = "1.3"
PLUGINS = {"dhcp", "dns", "mail", "ntp", "proxy", "syslog", "tftp", "web"}


def system(careless):
    """The tree. Whatever has no order of its own is sorted."""
    plugins = list(PLUGINS) if careless else sorted(PLUGINS)
    content = {
        "etc/appliance.conf": "".join(f"plugin={name}\n" for name in plugins),
        "etc/os-release": Symlink("../usr/lib/os-release"),
        "usr/lib/os-release": f"ID=appliance\nVERSION_ID={VERSION}\n",
        "usr/sbin/appliance": File(b"#!/bin/sh\nexec sleep infinity\n", mode=0o755, uid=0, gid=0),
        "var/lib/appliance/seed": File("", mode=0o600, uid=0, gid=0),
    }
    if careless:
        content["etc/built"] = f"{time.time_ns()} in {Path.cwd()}, TZ={os.environ.get('TZ')}\n"
        content["var/lib/appliance/seed"] = File(f"{random.random()}\n", mode=0o644, uid=0, gid=0)
    return content


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--careless", action="store_true")
    parser.add_argument("--manifest", type=Path)
    args = parser.parse_args()
    build_image(args.output, fstype="ext4", size="16M", content=system(args.careless))
    if args.manifest:
        with mount_image(args.output) as image:
            image.manifest().write(args.manifest)


if __name__ == "__main__":
    main()
