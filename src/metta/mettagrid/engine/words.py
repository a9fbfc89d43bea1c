"""What a processor does with 64 bits at once and Python has no operator for.

Each function is plain Python and, compiled, one or two instructions. Words are int64 everywhere, so that compiled and
interpreted arithmetic agree. A machine that cannot store a word at any byte stores single bytes in `write_word`.
"""

# Numba says little about its types, and less in some versions.
# mypy: disable-error-code="no-untyped-call,unused-ignore,import-untyped"
# ruff: noqa: ARG001 - Numba passes all arguments by position

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from metta.mettagrid.engine.compile import Function, is_interpreted
from metta.mettagrid.engine.state import Bytes, Longs


def compiled_as(generate: Callable[..., Any]) -> Callable[[Function], Function]:
    """Let compiled code use what a Numba intrinsic generates in place of a Python function."""

    def choose(function: Function) -> Function:
        return function if is_interpreted() else cast(Function, intrinsic(generate))

    return choose


def _lowest_bit(typing_context: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate


@compiled_as(_lowest_bit)
def lowest_bit(word: int) -> int:
    """The place of the lowest bit that is set in a word other than 0."""
    return (int(word) & -int(word)).bit_length() - 1


def _copy_words(
    typing_context: Any,
    source: Any,
    i: Any,
    j: Any,
    start: Any,
    masks: Any,
    k: Any,
    m: Any,
    target: Any,
    p: Any,
    q: Any,
    at: Any,
) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        words = ir.VectorType(ir.IntType(64), 4)

        def vector(first: int, count: int) -> Any:
            pointer = _pointer(context, builder, signature.args[first], args[first : first + count + 1])
            return builder.bitcast(pointer, words.as_pointer())

        copied = builder.or_(builder.load(vector(0, 3), align=8), builder.load(vector(4, 2), align=8))
        builder.store(copied, vector(7, 3), align=1)
        return context.get_dummy_value()

    word = types.int64
    return types.void(source, word, word, word, masks, word, word, target, word, word, word), generate


@compiled_as(_copy_words)
def copy_words(
    source: Bytes,
    i: int,
    j: int,
    start: int,
    masks: Longs,
    k: int,
    m: int,
    target: Bytes,
    p: int,
    q: int,
    at: int,
) -> None:
    """Write 32 bytes from byte `start` of `source[i, j]`, or-ed with `masks[k, m]`, from byte `at` of `target[p, q]` on."""
    target[p, q, at : at + 32] = source[i, j, start : start + 32] | masks[k, m].view(np.uint8)


def _write_word(typing_context: Any, rows: Any, i: Any, j: Any, at: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[4], _word_pointer(context, builder, signature, args), align=1)
        return context.get_dummy_value()

    return types.void(rows, types.int64, types.int64, types.int64, types.int64), generate


@compiled_as(_write_word)
def write_word(rows: Bytes, i: int, j: int, at: int, word: int) -> None:
    """Write a word over the 8 bytes from byte `at` of `rows[i, j]` on."""
    rows[i, j, at : at + 8] = np.array([word], "<i8").view(np.uint8)


def _word_pointer(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Where the arguments (rows, i, j, at) of a function point, as an address of a word."""
    byte = _pointer(context, builder, signature.args[0], args[:4])
    return builder.bitcast(byte, ir.IntType(64).as_pointer())


def _pointer(context: Any, builder: Any, array_type: Any, args: Any) -> Any:
    """The address of an element or row of the array `args[0]`; the rest are its indices."""
    array = context.make_array(array_type)(context, builder, args[0])
    strides = cgutils.unpack_tuple(builder, array.strides)
    offset = context.get_constant(types.intp, 0)
    for index, stride in zip(args[1:], strides, strict=False):
        offset = builder.add(offset, builder.mul(index, stride, flags=["nsw"]), flags=["nsw"])
    return cgutils.pointer_add(builder, array.data, offset)
