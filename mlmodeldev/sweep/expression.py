"""Constraints and conditions: small expressions over a sweep's parameters.

Example::

    rule = Expression.parse("optimizer.lr * processing.batch_size <= 0.1", names)
    rule.names                                    # {"optimizer.lr", "processing.batch_size"}
    rule.holds({"optimizer.lr": 0.001, "processing.batch_size": 32})   # True

Python's syntax, a part of it: dotted parameter names, numbers, text, lists, ``true``, ``false``,
``null``, ``+ - * / // % **``, comparisons, ``in``, ``and``, ``or``, ``not``, ``x if c else y``
and the functions ``min max abs round len``. Nothing else is run, so a sweep file is data.

The library simpleeval would not do: it reads ``optimizer.lr`` as an attribute of ``optimizer``,
and finds a misspelt name or a forbidden construct only where evaluation comes upon it, while a
sweep file is refused as soon as it is read, with the nearest name.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlmodeldev.errors import UsageError, nearest

_CONSTANTS = {"true": True, "false": False, "null": None}


def _round(number: float) -> int:
    # With the second argument of Python's own, a million digits could be asked for.
    return round(number)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "round": _round,
    "len": len,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    # In floats a power cannot grow into an integer that fills the memory.
    ast.Pow: lambda a, b: float(a) ** float(b),
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_MAX_TEXT = 1000
_MAX_DEPTH = 50


@dataclass(frozen=True)
class Expression:
    """A parsed expression: its text and the parameters it names."""

    text: str
    names: frozenset[str]
    _root: ast.expr

    @classmethod
    def parse(cls, text: str, parameters: Collection[str]) -> Expression:
        """Parse an expression over parameters of these names.

        Raises:
            UsageError: it is no such expression, or names another parameter.
        """
        if not isinstance(text, str) or len(text) > _MAX_TEXT:
            raise UsageError("must be an expression such as: optimizer.lr < 0.1")
        try:
            root = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise UsageError(f"{text!r} is no expression such as: optimizer.lr < 0.1") from None
        names = frozenset(_names(root, text, 0))
        for name in sorted(names - set(parameters)):
            hint = nearest(name, parameters)
            raise UsageError(f"{text!r}: {name!r} is no parameter here{hint}")
        return cls(text, names, root)

    def value(self, overrides: Mapping[str, Any]) -> Any:
        """Return the expression's value at a point.

        Raises:
            UsageError: it cannot be worked out there (text times a number, division by 0).
        """
        try:
            return _evaluate(self._root, overrides)
        except (TypeError, ArithmeticError, ValueError) as error:
            raise UsageError(f"{self.text!r} cannot be worked out: {error}") from None

    def holds(self, overrides: Mapping[str, Any]) -> bool:
        """True if the expression is true at a point; it may raise as `value` does."""
        return bool(self.value(overrides))


def _dotted_name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        above = _dotted_name(node.value)
        return f"{above}.{node.attr}" if above else None
    return None


def _names(node: ast.expr, text: str, depth: int) -> Iterator[str]:
    """Yield the parameters named; refuse every construct that `_evaluate` does not know."""
    if depth > _MAX_DEPTH:
        raise UsageError(f"{text!r} is nested too deeply")
    name = _dotted_name(node)
    if name is not None:
        if name not in _CONSTANTS:
            yield name
        return
    for inner in _operands(node, text):
        yield from _names(inner, text, depth + 1)


def _operands(node: ast.expr, text: str) -> list[ast.expr]:  # noqa: PLR0911, one per construct
    match node:
        case ast.Constant(value=value) if value is None or isinstance(
            value, bool | int | float | str
        ):
            return []
        case ast.BoolOp(values=values):
            return values
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.UAdd(), operand=operand):
            return [operand]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return [left, right]
        case ast.Compare(left=left, ops=ops, comparators=others) if all(
            type(op) in _COMPARISONS for op in ops
        ):
            return [left, *others]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return items
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return [test, body, orelse]
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return args
    what = type(node).__name__
    raise UsageError(f"{text!r}: {what} is not allowed; see docs/sweeps.md for what is")


def _evaluate(node: ast.expr, at: Mapping[str, Any]) -> Any:  # noqa: PLR0911, one per construct
    name = _dotted_name(node)
    if name is not None:
        return _CONSTANTS[name] if name in _CONSTANTS else at[name]
    match node:
        case ast.Constant(value=value):
            return value
        case ast.BoolOp(op=op, values=values):
            combine = all if isinstance(op, ast.And) else any
            return combine(_evaluate(each, at) for each in values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _evaluate(operand, at)
        case ast.UnaryOp(op=op, operand=operand):
            number = _number(_evaluate(operand, at))
            return -number if isinstance(op, ast.USub) else number
        case ast.BinOp(left=left, op=op, right=right):
            return _ARITHMETIC[type(op)](
                _number(_evaluate(left, at)), _number(_evaluate(right, at))
            )
        case ast.Compare(left=left, ops=ops, comparators=others):
            return _compare(left, ops, others, at)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_evaluate(item, at) for item in items]
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _evaluate(body if _evaluate(test, at) else orelse, at)
        case ast.Call(func=ast.Name(id=function), args=args):
            return _FUNCTIONS[function](*(_evaluate(arg, at) for arg in args))
    raise AssertionError(f"{type(node).__name__} passed the parser")


def _number(value: Any) -> Any:
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return value


def _compare(
    left: ast.expr, ops: list[ast.cmpop], others: list[ast.expr], at: Mapping[str, Any]
) -> bool:
    value = _evaluate(left, at)
    for op, other in zip(ops, others, strict=True):
        following = _evaluate(other, at)
        if not _COMPARISONS[type(op)](value, following):
            return False
        value = following
    return True
