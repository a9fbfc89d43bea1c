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
from numba.core import types
from numba.extending import intrinsic

from metta.mettagrid.engine.bundle import element_address
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
    typing_context: Any, source: Any, i: Any, start: Any, masks: Any, j: Any, first: Any, target: Any, at: Any
) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        words = ir.VectorType(ir.IntType(64), 4).as_pointer()

        def vector(array: int, *places: Any) -> Any:
            address = element_address(context, builder, signature.args[array], args[array], places)
            return builder.bitcast(address, words)

        held = builder.load(vector(0, args[1], args[2]), align=8)
        mask = builder.load(vector(3, args[4], args[5]), align=8)
        builder.store(builder.or_(held, mask), vector(6, args[7]), align=1)
        return context.get_dummy_value()

    word = types.int64
    return types.void(source, word, word, masks, word, word, target, word), generate


@compiled_as(_copy_words)
def copy_words(
    source: Bytes, i: int, start: int, masks: Longs, j: int, first: int, target: Bytes, at: int
) -> None:
    """Write 32 bytes over `target` from byte `at` on: those of `source[i]` from byte `start` on, or-ed with 4 masks.

    The masks are the words of `masks[j]` from word `first` on. `start` and the size of a row are whole words.
    """
    target[at : at + 32] = source[i, start : start + 32] | masks[j, first : first + 4].view(np.uint8)


def _write_word(typing_context: Any, target: Any, at: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = element_address(context, builder, signature.args[0], args[0], args[1:2])
        builder.store(args[2], builder.bitcast(address, ir.IntType(64).as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(target, types.int64, types.int64), generate


@compiled_as(_write_word)
def write_word(target: Bytes, at: int, word: int) -> None:
    """Write a word over 8 bytes of `target` from byte `at` on."""
    target[at : at + 8] = np.array([word], "<i8").view(np.uint8)
