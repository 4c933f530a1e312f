"""Runs a notebook in a kernel whose files all lie in one folder; for a process of its own.

    python tests/notebook_run.py examples/notebook.ipynb /tmp/place /tmp/project/examples

Writes ``executed.ipynb`` into that place. The packages lie in .venv-extras (``make .venv-extras``),
behind those of the environment.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ROOT / ".venv-extras"
_KERNEL = (
    f"import sys; sys.path.append({str(PACKAGES)!r});"
    " from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
)


def run(notebook: str, place: Path, working_directory: str) -> None:
    """Run all cells; an error in one of them is raised."""
    kernel = place / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    started = [sys.executable, "-c", _KERNEL, "-f", "{connection_file}"]
    spec = {"argv": started, "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    os.environ["JUPYTER_PATH"] = str(place / "jupyter")
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        os.environ[name] = str(place / name.lower())
    sys.path.append(str(PACKAGES))

    import nbformat
    from nbclient import NotebookClient

    read = nbformat.read(notebook, as_version=4)
    resources = {"metadata": {"path": working_directory}}
    NotebookClient(read, timeout=200, resources=resources).execute()
    nbformat.write(read, place / "executed.ipynb")


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
