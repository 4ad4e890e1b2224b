import pytest

from pytest_imagemount import Symlink

SYSTEM = {
    "etc/hostname": "web01\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 web01.example web01\n10.0.0.1 web011\n",
    "etc/os-release": "ID=example\n",
    "srv/link": Symlink("/etc"),
}


@pytest.fixture(params=["raw", "qcow2", "vmdk"])
def disk(request, image_factory):
    """A disk with a boot partition and a system, in each format."""
    return image_factory(
        format=request.param,
        table="gpt",
        partitions=[
            {"fstype": "ext4", "name": "boot", "type": "xbootldr", "content": {"vmlinuz": b"kernel"}},
            {"fstype": "ext4", "name": "system", "type": "root-x86-64", "content": SYSTEM},
        ],
    )
