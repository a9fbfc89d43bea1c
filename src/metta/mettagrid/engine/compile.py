"""How the functions of the engine are compiled: for CPU threads, or not at all.

Everything in this package is plain Python over numpy arrays. `rule` compiles a function that other
engine functions call, `kernel` one that Python calls. With `NUMBA_DISABLE_JIT=1` both leave the function
as it is, and the engine runs interpreted.

Compiled kernels are kept on disk. Numba only looks at the file of the outermost function to see whether
that copy is current, so the folder is named after a hash of all files of this package: a change in any of
them starts a new folder and can never meet an old kernel.
"""

# Numba says little about its types, and less in some versions.
# mypy: disable-error-code="no-untyped-call,attr-defined"

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import config as numba_config
from numba.core import types

Function = TypeVar("Function", bound=Callable[..., Any])

ENGINE_SECONDS = 25
"""Roughly what compiling the engine takes; only for the message."""

OTHER_SECONDS = 3
"""Likewise, of any other kernel."""

_log = logging.getLogger(__name__)


def rule(function: Function) -> Function:
    """Compile a function that is only called from other engine functions.

    Numba would compile it anew for every width of integer and every constant that it is called with; all integers
    are passed as int64 instead, which halves the time that compiling takes.
    """
    return _compiled_rule(function, inline=False)


def hot_rule(function: Function) -> Function:
    """As `rule`, for the functions of every step: compiled into its callers, which spares the call.

    A step takes a quarter less time for it, and compiling more; so what is rare, or long, stays a call.
    """
    return _compiled_rule(function, inline=True)


def _compiled_rule(function: Function, inline: bool) -> Function:
    options: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # Python never calls it
    compiled: Any = numba.njit(nogil=True, error_model="numpy", forceinline=inline, **options)(function)
    if not is_interpreted():
        resolve = compiled.get_call_template
        compiled.get_call_template = lambda args, kws: resolve(tuple(map(_widened, args)), kws)
    return cast(Function, compiled)


def kernel(function: Function, *, seconds: int = OTHER_SECONDS) -> Function:
    """Compile a function that Python calls, without holding the interpreter lock, cached on disk.

    Args:
        function: what to compile.
        seconds: roughly how long that takes, for the message that comes when it has to be done.
    """
    if is_interpreted():
        return function
    before = numba_config.CACHE_DIR
    numba_config.CACHE_DIR = str(cache_folder())
    try:
        compiled: Any = numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    finally:
        numba_config.CACHE_DIR = before
    compiler = compiled._compiler
    compile_now = compiler.compile

    def compile_aloud(*arguments: Any) -> Any:
        """Compile what was not found on disk, and say so: nobody likes to wait without knowing why."""
        what = "the engine" if seconds == ENGINE_SECONDS else f"{function.__name__} of the engine"
        _log.warning("compiling %s, once, about %d s", what, seconds)
        return compile_now(*arguments)

    compiler.compile = compile_aloud
    return cast(Function, compiled)


def _widened(argument: Any) -> Any:
    plain = types.unliteral(argument)
    return types.int64 if isinstance(plain, types.Integer) else plain


def is_interpreted() -> bool:
    """Whether the engine runs as plain Python."""
    return bool(numba_config.DISABLE_JIT)


def is_kept(name: str) -> bool:
    """Whether a kernel of that name is kept on disk."""
    return any(cache_folder().rglob(f"*.{name}-*.nbc"))


@cache
def cache_folder() -> Path:
    """Where kernels compiled from exactly these sources are kept."""
    package = Path(__file__).parent
    digest = source_hash(package)
    bases = [
        lambda: package / "__pycache__",
        lambda: Path.home() / ".cache" / "metta",
        lambda: Path(tempfile.gettempdir()),
    ]
    for base in bases:
        try:
            folder = base() / f"engine-{digest}"
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except (OSError, RuntimeError):  # not writable; no home
            continue
    raise RuntimeError(
        f"found no folder to keep the compiled engine in: neither {package / '__pycache__'} nor the home nor the "
        "temporary folder can be written; make one of them writable."
    )


def source_hash(package: Path) -> str:
    """A hash of all Python files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(package.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
