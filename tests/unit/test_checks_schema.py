"""Mistakes in check files: each is told with file, line and column, and what was meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pytest_imagemount.checks.plan import SINGLE, Check, ImageKey, load_plans
from pytest_imagemount.checks.schema import schema
from pytest_imagemount.errors import CheckFileInvalid

ROOT = Path(__file__).parents[2]
SECTIONS = [name for name in schema()["properties"] if name != "image"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "base.imagecheck.yaml"


def mistakes(file: Path, text: str) -> list[str]:
    file.write_text(text)
    with pytest.raises(CheckFileInvalid) as caught:
        load_plans(file, "f")
    return list(caught.value.mistakes)


def checks(file: Path, text: str) -> list[Check]:
    file.write_text(text)
    return [check for plan in load_plans(file, "f") for check in plan.checks]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("oss: {id: debian}", "f:1:1: unknown key 'oss'; did you mean 'os'?"),
        ("xyzzy: 1", "f:1:1: unknown key 'xyzzy'; known here: image, os, files, packages, "),
        ("files: {/a: {onwer: root}}", "f:1:14: unknown key 'onwer'; did you mean 'owner'?"),
        ("files: {/a: {max_mode: 0644}}", "f:1:14: unknown key 'max_mode'; did you mean 'max-mode'?"),
        ("files: {/a: abent}", "f:1:13: /a: 'abent' is not exists or absent; did you mean 'absent'?"),
        ("files: {/a: present}", "f:1:13: /a: 'present' is not exists or absent; did you mean 'exists'?"),
        ("packages: {a: present}", "f:1:15: a: 'present' is not installed or absent; did you mean 'installed'?"),
        ("users: {a: {state: removed}}", "f:1:20: state: 'removed' is not exists or absent; did you mean 'absent'?"),
        ("files: {/a: {exists: true}}", "f:1:14: unknown key 'exists'; did you mean 'state: exists'?"),
        ("packages: {a: {absent: true}}", "f:1:16: unknown key 'absent'; did you mean 'state: absent'?"),
        ("image: {format: raw}\nos: {id: x}", "f:1:9: format: is only for a path that is given here"),
        ("files: {/a: {type: folder}}", "f:1:20: type: 'folder' is not file, directory, link, fifo, "),
        ("files: {/a: {mode: rw}}", "f:1:20: mode: 'rw' is not an octal mode, as 0644"),
        ("files: {/a: {mode: 0999}}", "f:1:20: mode: '0999' is not an octal mode, as 0644"),
        ("files: {/a: {mode: 688}}", "f:1:20: mode: 688 is not an octal mode, as 0644"),
        ("files: {/a: {max-mode: '77777'}}", "f:1:24: max-mode: 77777 is not an octal mode, as 0644"),
        ("files: {/a: {size: 4 MBB}}", "f:1:20: size: '4 MBB' is not a size: bytes, or with a unit, as 512 MiB"),
        ("files: {/a: {size: -1}}", "f:1:20: size: -1 is not a size"),
        ("files: {/a: {min-size: 2 KiB, max-size: 3}}", "f:1:24: min-size: 2 KiB is above max-size: 3"),
        ("files: {/a: {matches: '(['}}", "f:1:23: matches: '([' is no regular expression: unterminated"),
        ("files: {/a: {matches: [ok, '*']}}", "f:1:28: '*' is no regular expression: nothing to repeat"),
        ("files: {/a: {contains: []}}", "f:1:24: contains: is empty, so that nothing would be checked"),
        ("files: {/a: {contains: ''}}", "f:1:24: contains: is empty"),
        ("files: {/a: {contains: true}}", "f:1:24: contains: true is not text or a list of text; put it in quotes"),
        ("files: {/a: {contains: {b: c}}}", "f:1:24: contains: a mapping of keys is not text or a list of text"),
        ("files: {/a: {owner:}}", "f:1:14: owner: is empty, so that nothing would be checked; give a value, or remove"),
        ("files: {/a: }", "f:1:9: /a: is empty"),
        ("files: {/a: {}}", "f:1:13: /a: is empty"),
        ("files: {}", "f:1:8: files: is empty"),
        ("files:", "f:1:1: files: is empty"),
        ("files: {a: exists}", "f:1:9: 'a' is not an absolute path in the image, as /etc/hostname"),
        ("files: [/a]", "f:1:8: files: a list is not a mapping of keys"),
        ("files: {/a: {sha256: abc}}", "f:1:22: sha256: 'abc' is not 64 hexadecimal digits"),
        ("files: {/a: {why: because}}", "f:1:9: /a: only a reason is given, and nothing to check"),
        ("files: {/a: {state: absent, mode: 0644}}", "f:1:29: mode: of what is to be absent, nothing else can be"),
        ("packages: {a: instaled}", "f:1:15: a: 'instaled' is not installed or absent; did you mean 'installed'?"),
        ("packages: {a: 1.2}", "f:1:15: a: 1.2 is not installed or absent, or a version constraint, as "),
        ("packages: {a: {version: newest}}", "f:1:25: version: 'newest' is not a version constraint, as "),
        ("services: {a: enabeld}", "f:1:15: a: 'enabeld' is not enabled, disabled, masked, "),
        ("services: {a: {state: [enabled, dsabled]}}", "f:1:33: 'dsabled' is not enabled, disabled, "),
        ("users: {a: {uid: root}}", "f:1:18: uid: 'root' is not a whole number"),
        ("users: {a: {password: lockd}}", "f:1:23: password: 'lockd' is not locked, none, empty, set or unknown; did"),
        ("os: {hostname: true}", "f:1:16: hostname: true is not text; put it in quotes"),
        ("os: {machine-id: emty}", "f:1:18: machine-id: 'emty' is not absent, empty, uninitialized or set; did you"),
        ("os: debian", "f:1:5: os: 'debian' is not a mapping of keys"),
        ("fstab: {boot: exists}", "f:1:9: 'boot' is not a mount point, as /boot, or swap"),
        (
            "free-space: lots",
            "f:1:13: free-space: 'lots' is not a size: bytes, or with a unit, as 512 MiB, or a mapping",
        ),
        ("free-space: {min: 2 MiB, max: 1 MiB}", "f:1:19: min: 2 MiB is above max: 1 MiB"),
        ("free-space: {min-percent: 101}", "f:1:27: min-percent: 101 is not a number from 0 to 100"),
        ("rules: {no-setuid: false}", "f:1:20: no-setuid: false is not true, or {except: [paths]}; to leave the rule"),
        ("rules: {no-host-keys: {except: [/a]}}", "f:1:24: unknown key 'except'; known here: why"),
        ("rules: {no-secrets: {except: [a]}}", "f:1:31: 'a' is not an absolute path in the image, or a pattern"),
        ("rules: {no-setuid-except: [/a]}", "f:1:9: unknown key 'no-setuid-except'; did you mean 'no-setuid'?"),
        ("disk: {partitions: many}", "f:1:20: partitions: 'many' is not a number of partitions"),
        ("image: a.raw", "f:1:1: there is no check here, only an image"),
        ("image: {mode: rw}\nos: {id: a}", "f:1:15: mode: 'rw' is not ro or overlay"),
        ("- os", "f:1:1: a list is not a mapping of keys"),
        ("debian", "f:1:1: 'debian' is not a mapping of keys"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_was_meant(file: Path, text: str, message: str) -> None:
    (found,) = mistakes(file, text)
    assert found.startswith(message)


@pytest.mark.parametrize("text", ["files: {/a: true}", "users: {a: {uid: true}}", "os: true"])
def test_quotes_are_not_advised_where_text_would_not_do_either(file: Path, text: str) -> None:
    (found,) = mistakes(file, text)
    assert "quotes" not in found


def test_every_mistake_of_every_document_is_told_in_the_order_of_the_file(file: Path) -> None:
    found = mistakes(file, "os: {idd: a}\nfiles: {/a: {onwer: b, mode: x}}\n---\nos: {id: }\n")
    assert [line.split(": ")[0] for line in found] == ["f:1:6", "f:2:14", "f:2:30", "f:4:6"]


@pytest.mark.parametrize(
    ("text", "section", "subject", "expect"),
    [
        ("files: {/a: exists}", "files", "/a", {"state": "exists"}),
        ("packages: {a: installed}", "packages", "a", {"state": "installed"}),
        ("packages: {a: '>= 1'}", "packages", "a", {"version": ">= 1"}),
        ("services: {a: masked}", "services", "a", {"state": "masked"}),
        ("partitions: {1: absent}", "partitions", "1", {"state": "absent"}),
        ("free-space: 5 MiB", "free-space", "", {"min": "5 MiB"}),
        ("rules: {no-setuid: true}", "rules", "no-setuid", {}),
        ("os: {id: a}", "os", "", {"id": "a"}),
    ],
)
def test_short_forms_are_written_out(file: Path, text: str, section: str, subject: str, expect: dict[str, Any]) -> None:
    (check,) = checks(file, text)
    assert (check.section, check.subject, check.expect) == (section, subject, expect)


def test_a_check_knows_its_name_line_and_reason(file: Path) -> None:
    one, other = checks(file, "os: {id: a, why: policy}\nfiles:\n  /etc/shadow: exists\n")
    assert (one.name, one.line, one.why) == ("os", 1, "policy")
    assert (other.name, other.line, other.why, other.file) == ("files:/etc/shadow", 3, "", "f")


def test_the_path_of_an_image_is_relative_to_the_check_file(file: Path) -> None:
    file.write_text("image: ../build/a.raw\nos: {id: a}\n---\nimage: {partition: 2, mode: overlay}\nos: {id: a}\n")
    first, second = load_plans(file)
    assert first.image == ImageKey(path=file.parent / "../build/a.raw")
    assert second.image == ImageKey(partition="2", mode="overlay")


def test_the_schema_is_valid_and_of_draft_2020_12() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_a_document_of_checks_is_valid_for_other_validators_too() -> None:
    """As an editor sees it, whose YAML is 1.1 or 1.2."""
    text = "files: {/etc/shadow: {mode: 0640}}\nos: {version: 12}\npartitions: {'1': exists}\n"
    jsonschema.Draft202012Validator(schema()).validate(yaml.safe_load(text))


@pytest.mark.parametrize("section", SECTIONS)
def test_the_example_of_each_section_is_a_check_file(section: str, file: Path) -> None:
    found = checks(file, schema()["properties"][section]["x-yaml"])
    assert {check.section for check in found} == {section}
    assert (section in SINGLE) == (found[0].subject == "")


def test_every_key_has_a_description() -> None:
    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict):
            for key, value in node.get("properties", {}).items():
                own = value.get("description") or schema()["$defs"].get(value.get("$ref", "")[8:], {}).get(
                    "description"
                )
                assert own, f"{path}/{key} has no description"
            for key, value in node.items():
                walk(value, f"{path}/{key}")
        elif isinstance(node, list):
            for value in node:
                walk(value, path)

    walk(schema(), "")


def test_every_example_file_of_the_project_is_valid(tmp_path: Path) -> None:
    files = sorted((ROOT / "examples").rglob("*.imagecheck.yaml"))
    assert files
    for file in files:
        assert load_plans(file)
