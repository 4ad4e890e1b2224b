"""docs/checks.md: the part that is generated is up to date, and the first example says what it prints."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_imagemount.checks.reference import main, reference, renew
from pytest_imagemount.checks.schema import schema
from tests.unit.checked_image import FolderImage, failures, write_tree

PAGE = Path(__file__).parents[2] / "docs/checks.md"

DOCUMENTED = {
    "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
    "etc/passwd": "root:x:0:0::/root:/bin/sh\n",
    "etc/shadow": "root:*:1::::::\n",
    "etc/ssh/sshd_config": "Port 22\n#PermitRootLogin prohibit-password\n",
    "root/.bash_history": "ls\n",
    "var/lib/dpkg/status": "Package: nginx\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.22.1-9\n",
    "usr/lib/systemd/system/ssh.service": "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
}


def block(page: str, language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


def test_the_page_is_up_to_date(tmp_path: Path) -> None:
    page = PAGE.read_text()
    assert renew(page) == page, "run: python -m pytest_imagemount.checks.reference docs/checks.md"
    copy = tmp_path / "checks.md"
    copy.write_text(page.replace("### `files`", "### `flies`"))
    assert main([str(copy)]) == 0
    assert copy.read_text() == page


def test_every_section_and_key_is_in_the_reference() -> None:
    text = reference()
    for name, node in schema()["properties"].items():
        assert f"### `{name}`" in text
        assert node["x-yaml"] in text
    assert "| `no-secrets` | `true`, or exceptions |" in text
    assert "| `state` | `enabled`, `disabled`," in text


def test_the_first_example_of_the_page_fails_as_the_page_says(tmp_path: Path) -> None:
    page = PAGE.read_text()
    tree = tmp_path / "root"
    write_tree(tree, DOCUMENTED)
    (tree / "etc/shadow").chmod(0o644)
    image = FolderImage(tree)
    told = failures(block(page, "yaml"), image, tmp_path)
    # Who runs the tests owns the tree.
    told = re.sub(r"  owner  expected root\n         found .*\n", "", told)
    assert told.replace("  mode   expected 0640\n         found ", "  mode  expected 0640\n        found ") == block(
        page, "text"
    ).rstrip("\n")
