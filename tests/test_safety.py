"""Nothing in the packages can run what it reads: no pickle, no eval, no code from a model's repository."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (ROOT / "cidm_cli", ROOT / "registry" / "cidm_registry", ROOT / "templates" / "cidm_templates")
SOURCES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))

MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {
    "torch.load": "unpickles",
    "torch.jit.load": "runs code",
    "torch.hub.load": "runs code from the network",
    "numpy.load": "may unpickle",
    "np.load": "may unpickle",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "yaml.load": "runs constructors",
    "pandas.read_pickle": "unpickles",
}
PRETRAINED = {"from_pretrained", "from_single_file", "load_lora_weights", "load_textual_inversion"}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dangers(source: str) -> Iterator[str]:
    """What in a source text could run what it reads, a line each."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if bad := {name.split(".")[0] for name in names} & MODULES:
                yield f"{node.lineno}: imports {', '.join(sorted(bad))}"
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in BUILTINS:
                yield f"{node.lineno}: calls {name}"
            if name in CALLS:
                yield f"{node.lineno}: {name} {CALLS[name]}"
            yield from keyword_dangers(node, name.rsplit(".", 1)[-1])


def keyword_dangers(node: ast.Call, method: str) -> Iterator[str]:
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    for dangerous in ("trust_remote_code", "allow_pickle", "shell", "custom_pipeline"):
        value = keywords.get(dangerous)
        if value is not None and not (isinstance(value, ast.Constant) and value.value is False):
            yield f"{node.lineno}: {dangerous} is not False"
    safe = keywords.get("use_safetensors")
    if safe is not None and not (isinstance(safe, ast.Constant) and safe.value is True):
        yield f"{node.lineno}: use_safetensors is not True"
    if (
        method in PRETRAINED
        and re.search(r"\bAuto[A-Z]", dotted(node.func))
        and "trust_remote_code" not in keywords
    ):
        yield f"{node.lineno}: {method} of an auto class may ask whether to run a repository's code"
    weightless = any(word in dotted(node.func).lower() for word in ("tokenizer", "imageprocessor"))
    if method in PRETRAINED and not weightless and safe is None:
        yield f"{node.lineno}: {method} without use_safetensors=True may read a pickle"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_runs_nothing_it_reads(path: Path) -> None:
    assert list(dangers(path.read_text(encoding="utf-8"))) == []


def test_all_packages_are_looked_at() -> None:
    assert {path.parent.name for path in SOURCES} >= {
        "cidm_cli",
        "commands",
        "cidm_registry",
        "cidm_templates",
    }


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import dill as harmless",
        "import torch\ntorch.load('x')",
        "eval('1')",
        "exec('1')",
        "__import__('os')",
        "import numpy as np\nnp.load('x')",
        "f(allow_pickle=True)",
        "f(trust_remote_code=flag)",
        "f(shell=True)",
        "UNet2DConditionModel.from_pretrained('x')",
        "AutoModel.from_pretrained('x', use_safetensors=True)",
        "AutoImageProcessor.from_pretrained('x')",
        "pipe.load_lora_weights('x', use_safetensors=None)",
        "f(use_safetensors=False)",
    ],
)
def test_the_check_notices(source: str) -> None:
    assert list(dangers(source))


@pytest.mark.parametrize(
    "source",
    [
        "import json",
        "model.eval()",
        "re.compile('x')",
        "f(trust_remote_code=False)",
        "AutoencoderKL.from_pretrained('x', use_safetensors=True)",
        "AutoImageProcessor.from_pretrained('x', trust_remote_code=False)",
    ],
)
def test_the_check_does_not_cry_wolf(source: str) -> None:
    assert not list(dangers(source))
