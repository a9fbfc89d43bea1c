"""What threads that share arrays tell each other: numbers that are read and written at once, in one order for all."""

# Numba says little about its types, and less in some versions.
# mypy: disable-error-code="no-untyped-call,attr-defined,import-untyped,unused-ignore"

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from metta.mettagrid.engine.compile import is_interpreted

_ORDER = "seq_cst"
_WORD = ir.IntType(64)
_X86, _ARM = ("x86_64", "AMD64"), ("aarch64", "arm64")


def _word_at(context: Any, builder: Any, array_type: Any, array: Any, place: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [place])


def _read(_typing: Any, words: Any, place: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = _word_at(context, builder, signature.args[0], args[0], args[1])
        return builder.load_atomic(word, _ORDER, 8)

    del place
    return types.int64(words, types.int64), generate


def _write(_typing: Any, words: Any, place: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = _word_at(context, builder, signature.args[0], args[0], args[1])
        builder.store_atomic(args[2], word, _ORDER, 8)
        return context.get_dummy_value()

    del place, value
    return types.void(words, types.int64, types.int64), generate


def _add(_typing: Any, words: Any, place: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = _word_at(context, builder, signature.args[0], args[0], args[1])
        return builder.atomic_rmw("add", word, args[2], _ORDER)

    del place, value
    return types.int64(words, types.int64, types.int64), generate


def _replace(_typing: Any, words: Any, place: Any, expected: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = _word_at(context, builder, signature.args[0], args[0], args[1])
        outcome = builder.cmpxchg(word, args[2], args[3], _ORDER, _ORDER)
        return builder.extract_value(outcome, 1)

    del place, expected, value
    return types.boolean(words, types.int64, types.int64, types.int64), generate


def _pause(_typing: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        del signature, args
        if platform.machine() in _X86:
            _call(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        elif platform.machine() in _ARM:
            _call(builder, "llvm.aarch64.hint", ir.VoidType(), [ir.Constant(ir.IntType(32), 1)])
        return context.get_dummy_value()

    return types.void(), generate


def _give_way(_typing: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        del signature, args
        if sys.platform != "win32":
            _call(builder, "sched_yield", ir.IntType(32), [])
        return context.get_dummy_value()

    return types.void(), generate


def _call(builder: Any, name: str, result: Any, args: list[Any]) -> None:
    kind = ir.FunctionType(result, [arg.type for arg in args])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def _compiled(build: Callable[..., Any]) -> Any:
    return build if is_interpreted() else intrinsic(build)


read_word = cast(Callable[[Any, int], int], _compiled(_read))
"""The number at a place of an int64 array. Interpreted there are no threads, and none of these is called."""
write_word = cast(Callable[[Any, int, int], None], _compiled(_write))
"""Set the number at a place."""
add_to_word = cast(Callable[[Any, int, int], int], _compiled(_add))
"""Add to the number at a place; returns what it was."""
replace_word = cast(Callable[[Any, int, int, int], bool], _compiled(_replace))
"""Set the number at a place if it is the expected one; returns whether it was."""
pause = cast(Callable[[], None], _compiled(_pause))
"""Wait a moment, a few dozen nanoseconds or less, without keeping the core from others that share it."""
give_way = cast(Callable[[], None], _compiled(_give_way))
"""Let another thread run that wants this core, if there is one."""
