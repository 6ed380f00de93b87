"""Programs that load a pushed ticket or run with torch, safetensors and huggingface_hub alone.

The definition of the network stands in the program as it was written, with what it rests on; what it has of
tombola draws first weights, which are loaded here, and becomes a function that does nothing. A program is
run once before it is shown: its network must give the logits of the original to the bit.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from tombola.data.imageset import Data
from tombola.networks.factory import arguments_for
from tombola.networks.network import Network
from tombola.source import Source, source_of

_REQUIRED = ("torch", "safetensors", "huggingface_hub", "numpy")
# What networks use of tombola's own, and what stands for it where only the layers matter.
_STAND_INS = {
    "tombola.networks.initialization": "{name} = lambda module: None  # first weights; others are loaded",
    "tombola.errors": "{name} = ValueError",
}


def definition(network: Network, state: dict[str, Tensor]) -> str | None:
    """The lines that define a network and build it as ``network``, without its weights.

    None where that cannot be said without tombola or files of the user's own, or what the lines build is not
    the network: with the weights of ``state`` its logits must be those of the network itself.
    """
    factory = network.factory or network.maker()
    source = source_of(factory)
    statements = None if source is None else source.statements()
    if source is None or statements is None:
        return None
    lines = _lines(source, statements)
    if lines is None or not source.name.isidentifier():
        return None
    arguments = arguments_for(factory, _inputs(network))
    call = f"{source.name}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"
    text = "\n".join([*lines, "", "", f"network = {call}"])
    return text if _is_same(text, network, state) else None


def _inputs(network: Network) -> dict[str, Any]:
    """What a factory may take, as the network itself offers it."""
    if network.vocabulary is not None:
        return {"classes": network.classes, "vocabulary": network.vocabulary, "length": network.size[0]}
    return {"classes": network.classes, "channels": network.channels, "size": network.size}


def _lines(source: Source, statements: Iterable[ast.stmt]) -> list[str] | None:
    """The statements as they were written, imports first; None if one is of something not at hand."""
    text = source.content.decode().splitlines()
    imports: dict[str, list[str]] = {}
    own: dict[str, str | None] = {}  # what is of tombola, with its stand-in
    shown: list[str] = []
    used: set[str] = set()
    for statement in statements:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            alias = statement.names[0]
            module = (statement.module or "") if isinstance(statement, ast.ImportFrom) else alias.name
            if module.partition(".")[0] == "tombola":
                stand_in = _STAND_INS.get(module)
                name = alias.asname or alias.name
                own[name] = stand_in and stand_in.format(name=name)
            elif (isinstance(statement, ast.ImportFrom) and statement.level) or not _is_installed(module):
                return None
            elif isinstance(statement, ast.ImportFrom):
                imports.setdefault(f"from {module} import", []).append(ast.unparse(alias))
            else:
                imports[f"import {ast.unparse(alias)}"] = []
            continue
        first, nodes = _without_decorators(statement, own)
        used |= _names(nodes)
        gap = 2 if isinstance(statement, ast.ClassDef | ast.FunctionDef) else 0
        shown += [*[""] * gap, *text[first - 1 : statement.end_lineno]]
    needed = [own[name] for name in own if name in used]
    if None in needed:
        return None
    lines = [f"{start} {', '.join(names)}".strip() for start, names in imports.items()]
    stand_ins = [line for line in needed if line]
    return [*lines, *([""] if stand_ins else []), *stand_ins, *shown]


def _without_decorators(statement: ast.stmt, own: Iterable[str]) -> tuple[int, list[ast.AST]]:
    """The first line that is shown of a statement, and all its nodes, without decorators of tombola's."""
    decorators = getattr(statement, "decorator_list", [])
    dropped = [line for line in decorators if _names(ast.walk(line)) & {*own}]
    lines = [statement.lineno] if dropped else [statement.lineno, *(line.lineno for line in decorators)]
    parts = [node for node in ast.iter_child_nodes(statement) if node not in dropped]
    return min(lines), [inner for part in parts for inner in ast.walk(part)] + [statement]


def _names(nodes: Iterable[ast.AST]) -> set[str]:
    """The names among some nodes that are evaluated, unlike those in type hints."""
    several = list(nodes)
    hints = {id(inner) for node in several for inner in _annotations(node)}
    return {node.id for node in several if isinstance(node, ast.Name) and id(node) not in hints}


def _annotations(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes of the type hints of a node, which nothing evaluates."""
    for hint in (getattr(node, "annotation", None), getattr(node, "returns", None)):
        if isinstance(hint, ast.AST):
            yield from ast.walk(hint)


def _is_installed(module: str) -> bool:
    """Whether a module is Python's own or of an installed package, and no file of the user's."""
    top = module.partition(".")[0]
    return top in _REQUIRED or top in sys.stdlib_module_names or top in metadata.packages_distributions()


def other_packages(text: str) -> list[str]:
    """The packages that a program imports beside torch, safetensors and huggingface_hub."""
    tops = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            tops |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            tops.add(node.module.partition(".")[0])
    return sorted(tops - sys.stdlib_module_names - set(_REQUIRED))


@torch.no_grad()
def _is_same(text: str, network: Network, state: dict[str, Tensor]) -> bool:
    """Whether the network of a program gives the logits of the original with the same weights."""
    space: dict[str, Any] = {"__name__": "program"}
    try:
        with torch.random.fork_rng(devices=[]):
            exec(
                compile(f"{_HINTS}\n{text}", "<program>", "exec"), space
            )  # the definition that runs here anyway
            shown: nn.Module = space["network"].eval()
        shown.load_state_dict(state)
        original = network.initialized(0).eval()
        original.load_state_dict(state)
        inputs = network.zeros(2)
        if network.vocabulary is None:
            inputs = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0))
        # A diverged network gives no numbers, and the same.
        return torch.allclose(shown(inputs), original(inputs), rtol=0, atol=0, equal_nan=True)
    except Exception:  # a network of the user's own may fail in any way without what surrounds it
        return False


_HINTS = "from __future__ import annotations"
_IMPORTS = (
    "import torch",
    "from huggingface_hub import hf_hub_download",
    "from safetensors.torch import load_file",
)
_LOADING = """
REPOSITORY, REVISION = "{repository}", "main"  # or a commit, which stays the same


def tensors(name):
    return load_file(hf_hub_download(REPOSITORY, name, revision=REVISION))


network.load_state_dict(tensors("{plain}"))
network.eval()

# What the mask keeps, to train on: eight positions a byte, the first in the highest bit.
masks = {{}}
for name, packed in tensors("{exact}").items():
    if name.startswith("mask."):
        weight = network.state_dict()[name.removeprefix("mask.")]
        bits = packed[:, None] >> torch.arange(7, -1, -1, dtype=torch.uint8) & 1
        masks[name.removeprefix("mask.")] = bits.flatten()[: weight.numel()].view(weight.shape).bool()"""

_PIXELS = '''
mean = torch.tensor({mean}).view(1, -1, 1, 1)
std = torch.tensor({std}).view(1, -1, 1, 1)


def predict(pixels):
    """Class indices of images, uint8 ({shape})."""
    with torch.no_grad():
        return network((pixels.float() / 255 - mean) / std).argmax(1)
'''

_INPUTS = '''

def predict(inputs):
    """Class indices of {inputs}{how}."""
    with torch.no_grad():
        return network(inputs).argmax(1)
'''


def program(
    network: Network, defined: str | None, repository: str, files: tuple[str, str], data: Data | None
) -> str:
    """A program that loads a repository's weights and masks into the network, and how it predicts.

    defined: the lines of :func:`definition`; without them, a line says which network has to be put there.
    files: names of the plain ``state_dict`` and of tombola's own file.
    """
    if defined is None:
        defined = f"network = ...  # {network.written}: an nn.Module with these names and shapes of tensors"
    lines = defined.splitlines()
    count = next((place for place, line in enumerate(lines) if not line.startswith(("from ", "import "))), 0)
    own, others = _sorted_imports({*_IMPORTS, *lines[:count]})
    weights_file, exact = files
    loading = _LOADING.format(repository=repository, plain=weights_file, exact=exact)
    head = [_HINTS, "", *own, *[""] * bool(own), *others, *[""] * (count == 0)]
    return "\n".join([*head, *lines[count:], loading, _use(network, data)])


def _sorted_imports(lines: Iterable[str]) -> tuple[list[str], list[str]]:
    """Imports of Python's own modules, and those of others, as they are usually sorted."""
    in_order = sorted(lines, key=lambda line: (line.startswith("from"), line.split()[1]))
    own = [line for line in in_order if line.split()[1].partition(".")[0] in sys.stdlib_module_names]
    return own, [line for line in in_order if line not in own]


def _use(network: Network, data: Data | None) -> str:
    if data is not None and data.kind == "images":
        mean, std = ([round(float(value), 9) for value in values] for values in (data.mean, data.std))
        return _PIXELS.format(mean=mean, std=std, shape=f"N, {', '.join(map(str, network.shape))}")
    how = "" if network.vocabulary is not None else ", normalised as in training"
    return _INPUTS.format(inputs=network.inputs, how=how)
