"""Fingerprints of the source of a user's declared functions and networks, to notice edits under an old name.

A fingerprint is SHA-256 over the syntax tree of a file or notebook cell, without comments, docstrings and
line breaks: once of the full text, and once of the part that the declared function or class rests on, which
is its own definition and, transitively, the definitions of that file that it names. It enters no job's name;
see :mod:`tombola.lab.staleness` for what it is compared with.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import linecache
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Literal, get_args

Kind = Literal[
    "functions", "networks", "inits", "scores", "augmentations", "schedules", "losses", "optimizers"
]
Use = tuple[Kind, str]
"""A declared name, after the kind of what was declared."""

FORM = 1
"""Version of the fingerprints; those of different forms are not compared.

It is raised when the same text gets another fingerprint, through this module or a new Python. Python 3.11 to
3.13 give the same ones, because trees are written out here and not by ``ast.dump``.
"""

# Names through which code reaches definitions that it does not spell.
_INDIRECT = frozenset({"__import__", "delattr", "eval", "exec", "globals", "locals", "setattr", "vars"})
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
# Fields that depend on a node's surroundings or on how it is spelled, and not on what it means.
_LEFT_OUT = frozenset({"ctx", "kind", "type_comment", "type_ignores"})


@dataclass(frozen=True)
class Source:
    """The text in which a function or class was declared, as it was then.

    content: of a file or a notebook cell. name: of the function or class in it. line: where it begins, from
    1; 0 for a class, which is looked up by its name.
    """

    content: bytes
    name: str
    line: int

    def statements(self) -> list[ast.stmt] | None:
        """The statements of its text that the definition rests on, itself included, in order.

        None where they cannot be told: the text is no Python or was edited since, the definition stands
        within a function, or names may be reached in ways that cannot be followed.
        """
        try:
            module, _, indirect = _parsed(self.content)
            seed = _definition(module, self)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
        if seed is None or indirect or "<locals>" in self.name:
            return None
        return _statements_behind(module, seed)

    @cached_property
    def fingerprint(self) -> dict[str, str] | None:
        """Fingerprints: ``"file"`` of the full text and, where it can be told, ``"text"`` of the part behind.

        None where the text cannot be parsed or does not have the definition, because it was edited since.
        """
        try:
            module, file_hash, indirect = _parsed(self.content)
            seed = _definition(module, self)
            if seed is None:
                return None
            if indirect or "<locals>" in self.name:
                return {"file": file_hash}
            return {"text": _hash(_statements_behind(module, seed)), "file": file_hash}
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


_declared: dict[Use, Source | None] = {}
_executed: dict[str, bytes] = {}
_used: ContextVar[set[Use] | None] = ContextVar("tombola_used", default=None)


def executing(path: Path, content: bytes) -> None:
    """Record the content that is executed next as that file, which may be edited meanwhile."""
    _executed[str(path)] = content


def remember_source(kind: Kind, name: str, declared: object) -> None:
    """Record the present source of what is being declared, unless it is tombola's own."""
    if (getattr(declared, "__module__", None) or "").partition(".")[0] == "tombola":
        _declared.pop((kind, name), None)
    else:
        _declared[kind, name] = source_of(declared)


def declared_source(kind: Kind, name: str) -> Source | None:
    """The source that was remembered of a declared name."""
    return _declared.get((kind, name))


def restore_source(kind: Kind, name: str, source: Source | None) -> None:
    """Remember a source that was remembered in another process."""
    _declared[kind, name] = source


def declared_here() -> dict[Kind, set[str]]:
    """The names that were declared in this process outside tombola, by kind."""
    names: dict[Kind, set[str]] = {kind: set() for kind in get_args(Kind)}
    for kind, name in _declared:
        names[kind].add(name)
    return names


def source_fingerprint(kind: Kind, name: str) -> dict[str, str] | None:
    """The fingerprint of what is declared under a name; None where it is unknown."""
    source = _declared.get((kind, name))
    return source.fingerprint if source is not None else None


def is_same(first: Mapping[str, str], second: Mapping[str, str]) -> bool:
    """Whether two fingerprints of one form are of the same text, by the finest part that both have."""
    part = "text" if "text" in first and "text" in second else "file"
    return first.get(part) == second.get(part)


@contextmanager
def recorded_uses() -> Iterator[set[Use]]:
    """Context whose set gathers the user's own functions and networks that this thread uses meanwhile."""
    uses: set[Use] = set()
    token = _used.set(uses)
    try:
        yield uses
    finally:
        _used.reset(token)


def note_use(kind: Kind, name: str) -> None:
    """Record that a declared function or score is called, a network built or its weights drawn."""
    uses = _used.get()
    if uses is not None and (kind, name) in _declared:
        uses.add((kind, name))


def fingerprints_of(uses: Iterable[Use]) -> dict[str, Any]:
    """The fingerprints of what was used, as they are kept with a result; empty if none is known."""
    kept: dict[str, Any] = {}
    for kind, name in sorted(uses):
        fingerprint = source_fingerprint(kind, name)
        if fingerprint is not None:
            kept.setdefault(kind, {})[name] = fingerprint
    return {"form": FORM} | kept if kept else {}


def file_fingerprint(content: bytes) -> str:
    """The fingerprint of a full Python file; SyntaxError if it is none."""
    return _hash(ast.parse(content).body)


def source_of(declared: Any) -> Source | None:
    """The text that something was defined in; None for what has none, such as C and partial functions."""
    if isinstance(declared, type):
        code = next(_methods(declared), None)
        file = code.co_filename if code else getattr(inspect.getmodule(declared), "__file__", None)
        line = 0
    else:
        declared = inspect.unwrap(declared, stop=lambda inner: isinstance(inner, partial))
        code = getattr(declared, "__code__", None)
        if not isinstance(code, types.CodeType):
            return None
        file, line = code.co_filename, code.co_firstlineno
    content = _executed_content(file) if file else None
    return Source(content, declared.__qualname__, line) if content is not None else None


def _methods(kind: type) -> Iterator[types.CodeType]:
    """The code of the functions that are written in a class."""
    for value in vars(kind).values():
        code = getattr(value, "__code__", None)
        if isinstance(code, types.CodeType) and code.co_qualname == f"{kind.__qualname__}.{code.co_name}":
            yield code


def _executed_content(file: str) -> bytes | None:
    """The content that was executed as a file: recorded, or that of the file or notebook cell now."""
    if file in _executed:
        return _executed[file]
    try:
        return Path(file).read_bytes()
    except (OSError, ValueError):
        cell = linecache.cache.get(file)
        return "".join(cell[2]).encode() if cell is not None and len(cell) > 2 else None


@lru_cache(maxsize=4)
def _parsed(content: bytes) -> tuple[ast.Module, str, bool]:
    """The tree of a file, its fingerprint, and whether it reaches definitions in ways not to be followed."""
    module = ast.parse(content)
    return module, _hash(module.body), _is_indirect(module)


def _definition(module: ast.Module, source: Source) -> ast.stmt | None:
    """The statement of a file that defines what was declared."""
    name = source.name.partition(".")[0]
    if source.line == 0:
        return next((last for last in reversed(module.body) if name in _bound_names([last])), None)
    for statement in module.body:
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(decorator.lineno for decorator in decorators)])
        if first <= source.line <= (statement.end_lineno or first):
            return statement if name == "<lambda>" or name in _bound_names([statement]) else None
    return None


def _is_indirect(module: ast.Module) -> bool:
    """Whether a file may reach definitions in ways that cannot be followed."""
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            return True
        if isinstance(node, ast.Name) and node.id in _INDIRECT:
            return True
        if isinstance(node, ast.Attribute) and (_root_name(node), node.attr) == ("sys", "modules"):
            return True
    return False


def _statements_behind(module: ast.Module, seed: ast.stmt) -> list[ast.stmt]:
    """The statement ``seed`` and those of its file that it rests on, in order; of imports the names used.

    It rests on those that define a name it uses, or change what the name stands for: by ``name.attribute =
    ...``, ``name[...] = ...``, ``name.method(...)`` and, of a value that can change, by any call for its
    effect.
    """
    binding: dict[str, list[ast.stmt]] = {}
    changing: dict[str, list[ast.stmt]] = {}
    for statement in module.body:
        for name in _bound_names([statement]) | _declared_global(statement):
            binding.setdefault(name, []).append(statement)
        for name in _changed_names(statement):
            changing.setdefault(name, []).append(statement)
    names: set[str] = set()
    visited: list[ast.stmt] = []
    pending = [seed]
    while pending:
        statement = pending.pop()
        if any(statement is other for other in visited):
            continue
        visited.append(statement)
        if isinstance(statement, ast.Import | ast.ImportFrom):
            continue
        used = _free_names(statement, frozenset()) | _declared_global(statement)
        for name in (used & binding.keys()) - names:
            names.add(name)
            pending += binding[name] + changing.get(name, [])
            if not _is_fixed(binding[name]):
                pending += changing.get(f"{name}()", [])
    ordered = [statement for statement in module.body if any(statement is other for other in visited)]
    return [part for statement in ordered for part in _imported(statement, names)]


def _imported(statement: ast.stmt, names: set[str]) -> list[ast.stmt]:
    """The statement itself; an import as one import of each of those names alone."""
    if not isinstance(statement, ast.Import | ast.ImportFrom):
        return [statement]
    aliases = [alias for alias in statement.names if _bound_by(alias) in names]
    if isinstance(statement, ast.Import):
        return [ast.Import([alias]) for alias in aliases]
    return [ast.ImportFrom(statement.module, [alias], statement.level) for alias in aliases]


def _is_fixed(statements: Iterable[ast.stmt]) -> bool:
    """Whether a name so bound stands for what no call can change: a definition, an import or a literal."""
    return all(
        isinstance(statement, (*_FUNCTIONS, ast.ClassDef, ast.Import, ast.ImportFrom))
        or (
            isinstance(statement, ast.Assign | ast.AnnAssign)
            and (statement.value is None or _is_literal(statement.value))
        )
        for statement in statements
    )


def _is_literal(value: ast.expr) -> bool:
    """Whether an expression is built of constants alone."""
    kinds = (ast.Constant, ast.Tuple, ast.UnaryOp, ast.BinOp, ast.operator, ast.unaryop, ast.expr_context)
    return all(isinstance(node, kinds) for node in ast.walk(value))


def _changed_names(statement: ast.stmt) -> set[str]:
    """Names whose values a statement outside definitions may change; ``name()`` where only a call may."""
    changed: set[str] = set()
    for node in _in_scope([statement]):
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            changed.add(_root_name(node))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            changed.add(_root_name(node.value.func) if not isinstance(node.value.func, ast.Name) else "")
            changed |= {f"{name}()" for name in _free_names(node, frozenset())}
    return changed - {""}


def _root_name(node: ast.expr) -> str:
    """The name that an attribute or item is reached from; "" if that is no name."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _in_scope(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Nodes and all below them in the same scope; of functions and classes the definition itself alone."""
    pending = list(nodes)
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, _COMPREHENSIONS):  # := binds in the scope around it
            pending.extend(inner.target for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr))
        elif not isinstance(node, (*_FUNCTIONS, ast.ClassDef, ast.Lambda)):
            pending.extend(ast.iter_child_nodes(node))


def _bound_names(nodes: Iterable[ast.AST]) -> set[str]:
    """The names that statements bind in the scope in which they stand."""
    bound: set[str] = set()
    for node in _in_scope(nodes):
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {_bound_by(alias) for alias in node.names}
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.add(node.id)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            bound.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            bound.add(node.rest)
    return bound


def _bound_by(alias: ast.alias) -> str:
    """The name that an import binds."""
    return alias.asname or alias.name.partition(".")[0]


def _declared_global(statement: ast.stmt) -> set[str]:
    """The names of its file that a statement declares global within functions, at any depth."""
    return {name for node in ast.walk(statement) if isinstance(node, ast.Global) for name in node.names}


def _free_names(node: ast.AST, local: frozenset[str]) -> set[str]:
    """The names that a node reads from its file; ``local`` are those of the functions around it."""
    if isinstance(node, ast.Name):
        return {node.id} - local if isinstance(node.ctx, ast.Load) else set()
    if isinstance(node, (*_FUNCTIONS, ast.Lambda)):
        body = [node.body] if isinstance(node, ast.Lambda) else node.body
        own = {name for statement in body for name in _declared_global_in(statement)}
        inside = (local | _parameter_names(node.args) | _bound_names(body)) - own
        outer = [child for child in ast.iter_child_nodes(node) if not any(child is inner for inner in body)]
        return _all_free_names(outer, local) | _all_free_names(body, inside)
    if isinstance(node, _COMPREHENSIONS):
        inside = local | _bound_names(generator.target for generator in node.generators)
        return _free_names(node.generators[0].iter, local) | _all_free_names(
            ast.iter_child_nodes(node), inside
        )
    return _all_free_names(ast.iter_child_nodes(node), local)  # what a class binds is not seen in its methods


def _all_free_names(nodes: Iterable[ast.AST], local: frozenset[str]) -> set[str]:
    return set().union(*(_free_names(node, local) for node in nodes))


def _declared_global_in(node: ast.AST) -> set[str]:
    """The names that a function declares global for itself."""
    return {name for inner in _in_scope([node]) if isinstance(inner, ast.Global) for name in inner.names}


def _parameter_names(arguments: ast.arguments) -> set[str]:
    return {node.arg for node in ast.iter_child_nodes(arguments) if isinstance(node, ast.arg)}


def _hash(statements: list[ast.stmt]) -> str:
    """SHA-256 over the trees of statements."""
    written: list[str] = []
    _write_tree(statements, written)
    return hashlib.sha256("".join(written).encode()).hexdigest()


def _write_tree(value: object, written: list[str]) -> None:
    """Append a syntax tree to ``written``, without docstrings, in a form that no Python version changes."""
    if isinstance(value, ast.AST):
        written.append(f"{type(value).__name__}(")
        for field in sorted(value._fields):
            part = getattr(value, field, None)
            if isinstance(value, ast.JoinedStr):  # Python 3.12 ends a format with an empty text
                part = [item for item in value.values if getattr(item, "value", None) != ""]
            if field not in _LEFT_OUT and part is not None and part != []:
                written.append(f"{field}=")
                _write_tree(part, written)
        written.append(")")
    elif isinstance(value, list):
        written.append("[")
        for item in value:
            if not _is_lone_text(item):
                _write_tree(item, written)
                written.append(",")
        written.append("]")
    else:
        written.append(ascii(value))  # repr shows what is printable to a Python


def _is_lone_text(item: object) -> bool:
    """Whether this is text that stands alone, such as a docstring, which does nothing."""
    lone = item.value if isinstance(item, ast.Expr) else None
    return isinstance(lone, ast.Constant) and isinstance(lone.value, str)
