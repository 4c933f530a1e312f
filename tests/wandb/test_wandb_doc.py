"""What docs/wandb.md tells a user without an account to type, word for word."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_path_without_an_account_works_as_written(tmp_path: Path):
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "wandb.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if "tests.wandb.server" in block]
    clone = tmp_path / "clone"
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in filter(None, listed):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, clone / name)
    (clone / ".venv").symlink_to(sys.prefix)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "SLURM_"))}
    env = {**kept, "PATH": f"{clone}/.venv/bin:{kept['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-m", "-ec", block], cwd=clone, env=env, capture_output=True, text=True,
        timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(f.read_text()) for f in clone.glob("runs/*/*/trial.json")]
    assert [r["state"] for r in records] == ["done"] * 2
    assert all(r["uploaded"] for r in records)
    assert "1 runs taken (--count); 1 trials ended well, 0 failed" in done.stdout
