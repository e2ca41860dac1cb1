"""docs/do/switch-on-snippets.md opens what arrived, and writes nowhere that a message says."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pyrage
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "do" / "switch-on-snippets.md"
EVENT = "48a8588f-23ca-5228-9285-6502406e9f22"

pytestmark = pytest.mark.skipif(
    not (shutil.which("age") and shutil.which("jq")), reason="needs `apt install age jq`"
)


def opening() -> str:
    """Give the page's loop, as it stands."""
    (block,) = re.findall(r"^```\n(while .*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.M)
    return str(block)


def snippet(key: pyrage.x25519.Identity, event_id: str, sound: bytes) -> str:
    data = pyrage.encrypt(sound, [key.to_public()])
    said = {
        "event_id": event_id,
        "sha256": hashlib.sha256(data).hexdigest(),
        "data": base64.b64encode(data).decode("ascii"),
    }
    return json.dumps(said) + "\n"


def test_what_arrived_is_opened_and_a_path_for_a_name_leads_nowhere(tmp_path: Path) -> None:
    folder = tmp_path / "evidence"
    folder.mkdir()
    key = pyrage.x25519.Identity.generate()
    (folder / "owner.key").write_text(f"{key}\n")
    bad = ("../elsewhere", "a b", "-o", "", f"{EVENT}\n/x", f"../{EVENT}", "0" * 35)
    lines = [snippet(key, name, b"bad") for name in bad]
    lines.insert(3, snippet(key, EVENT, b"a sound"))
    spoilt = json.loads(snippet(key, EVENT.replace("4", "5"), b"x")) | {"sha256": "0" * 64}
    (folder / "snippets.jsonl").write_text("".join(lines) + json.dumps(spoilt) + "\n")
    done = subprocess.run(
        ["bash", "-c", opening()], cwd=folder, capture_output=True, text=True, check=True
    )
    assert (folder / f"{EVENT}.flac").read_bytes() == b"a sound"
    written = {file.name for file in tmp_path.rglob("*.*") if file.suffix in (".age", ".flac")}
    other = EVENT.replace("4", "5")
    assert written == {f"{name}.{kind}" for name in (EVENT, other) for kind in ("age", "flac")}
    assert done.stdout.count("names no event") == len(bad)
    assert f"{other}: altered" in done.stdout
