"""No form of loading that runs code of a file, but where this list says why it may.

The source is read, nothing is run: each call that could execute what lies in a file, in text or
behind an address is found by its name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    *(ROOT / "mlmodeldev").rglob("*.py"),
    *ROOT.glob("*.py"),
    *ROOT.glob("examples/*.py"),
    *ROOT.glob("slurm/*.py"),
    *ROOT.glob("tools/*.py"),
    *ROOT.glob("benchmarks/*.py"),
]

ALLOWED = {
    ("mlmodeldev/settings/source.py", "eval"): (
        "annotations of the user's own class, without builtins, to check settings by them"
    ),
    ("mlmodeldev/settings/source.py", "compile"): "the same annotations",
    ("mlmodeldev/slurm/entrypoint.py", "pickle.load"): (
        "the job's own list, written by submit; refused where everybody may write"
    ),
    ("mlmodeldev/testing/resuming.py", "torch.load"): (
        "a checkpoint that the user's own test has just written"
    ),
    ("mlmodeldev/tracking/clearml_offline.py", "former.extractall"): (
        "the session that this very trial has packed before; zipfile keeps it inside of the folder"
    ),
    ("mlmodeldev/tracking/metadata.py", "yaml.load"): "with the safe loader, the one in C if there",
}
"""Where such a form may stand, and why."""

NEVER = {
    *("eval", "exec", "compile", "__import__"),
    *("os.system", "os.popen", "os.execl", "os.execlp", "os.spawnl", "pty.spawn"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads"),
    *("shelve.open", "joblib.load", "dill.load", "cloudpickle.load", "cloudpickle.loads"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "yaml.full_load_all"),
    *("torch.hub.load", "torch.jit.load", "torch.package.PackageImporter"),
    *("pandas.read_pickle", "pd.read_pickle", "tempfile.mktemp", "shutil.unpack_archive"),
    *("ssl._create_unverified_context", "subprocess.getoutput", "subprocess.getstatusoutput"),
}
NEVER_METHODS = {"extractall", "extract", "unsafe_load"}
"""Of a tar or zip: their members are written one by one, by names that are looked at."""
NEVER_ARGUMENTS = {
    "shell": (True,),
    "allow_pickle": (True,),
    "trust_remote_code": (True,),
    "verify": (False,),
}
MODULES = {"np": "numpy", "pd": "pandas"}


def dotted(node: ast.expr) -> str:
    """Return the dotted name of what is called; empty: it has none."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def imported(tree: ast.Module) -> dict[str, str]:
    """Return what names stand for that a module imports from another."""
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for alias in node.names
    }


def unsafe(text: str) -> Iterator[tuple[str, int]]:
    """Yield the unsafe calls of a module: their names and lines."""
    tree = ast.parse(text)
    names = imported(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        name = names.get(name, name)
        given = {each.arg: each.value for each in node.keywords}
        constants = {k: v.value for k, v in given.items() if isinstance(v, ast.Constant)}
        bad = name in NEVER
        bad |= isinstance(node.func, ast.Attribute) and node.func.attr in NEVER_METHODS
        bad |= any(k in constants and constants[k] in v for k, v in NEVER_ARGUMENTS.items())
        bad |= name.endswith(".load") and constants.get("weights_only", True) is not True
        bad |= name == "torch.load" and constants.get("weights_only") is not True
        if name.endswith(".from_pretrained"):
            bad |= constants.get("trust_remote_code") is not False and None not in given
        if bad:
            yield name or ast.unparse(node.func), node.lineno


@pytest.mark.project
def test_no_source_loads_what_may_run_code() -> None:
    calls = {
        (str(file.relative_to(ROOT)), name): f"{file.relative_to(ROOT)}:{line}: {name}"
        for file in SOURCES
        for name, line in unsafe(file.read_text())
    }
    assert [text for key, text in calls.items() if key not in ALLOWED] == []
    assert sorted(calls) == sorted(ALLOWED), "an exception that is none any more"
    assert len(SOURCES) > 300


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)",
        "exec(code)",
        "import pickle\npickle.loads(data)",
        "from pickle import load\nload(file)",
        "from pickle import load as read\nread(file)",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "yaml.load(text, Loader=yaml.Loader)",
        "np.load(file, allow_pickle=True)",
        "subprocess.run(words, shell=True)",
        "os.system(text)",
        "AutoModel.from_pretrained(name)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "with tarfile.open(file) as tar:\n    tar.extractall(place)",
        "zipfile.ZipFile(file).extract(name)",
        "shutil.unpack_archive(file)",
        "requests.get(url, verify=False)",
        "tempfile.mktemp()",
        "torch.hub.load('a/b', 'c')",
    ],
)
def test_each_form_is_seen(line: str) -> None:
    assert list(unsafe(line))


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(file, weights_only=True)",
        "np.load(file)",
        "yaml.safe_load(text)",
        "model.eval()",
        "re.compile(text)",
        "subprocess.run(['ls'])",
        "AutoModel.from_pretrained(name, trust_remote_code=False)",
        "kind.from_pretrained(name, **{'trust_remote_code': False, **arguments})",
        "ast.literal_eval(text)",
    ],
)
def test_what_is_safe_is_let_pass(line: str) -> None:
    assert not list(unsafe(line))
