"""The generated pages say what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_core_page_runs() -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "core.md").read_text(encoding="utf-8"), re.DOTALL)
    setting = (
        "import torch\nz1, z2 = torch.randn(6, 384), torch.randn(6, 384)\n"
        "z, y = torch.cat([z1, z2]), torch.arange(12) % 3\n"
        "positives, hard_negatives = torch.randn(512, 384), torch.randn(100, 384)\n"
    )
    exec(compile(setting + "\n".join(code), "docs/core.md", "exec"), {})
