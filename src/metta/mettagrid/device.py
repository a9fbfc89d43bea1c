"""Whether worlds can live on a GPU here."""

# Numba says little about its types, and less in some versions.
# mypy: disable-error-code="no-untyped-call,attr-defined,unused-ignore"

from __future__ import annotations

import importlib.util

from metta.mettagrid.engine.compile import is_interpreted


def is_simulated() -> bool:
    """Whether Numba's CUDA simulator stands for the GPU."""
    from numba.core import config

    return bool(config.ENABLE_CUDASIM)


def choose_gpu(gpu: int) -> None:
    """Have this thread of Numba's work on a GPU.

    Raises:
        RuntimeError: it works on another one, and cannot change.
    """
    from numba import cuda

    if is_simulated():
        return
    try:
        cuda.select_device(gpu)
    except RuntimeError as error:
        current = cuda.get_current_device().id
        raise RuntimeError(
            f"device is 'cuda:{gpu}', but this thread already works on GPU {current}: use one GPU in a process, and start one "
            "process for each with torchrun."
        ) from error


def require_cuda() -> None:
    """Refuse where there is no GPU to be used.

    Raises:
        RuntimeError: numba-cuda, a driver or a GPU is missing, or the engine runs as plain Python; one sentence with the remedy.
    """
    if is_simulated():
        if not is_interpreted():
            raise RuntimeError(
                "NUMBA_ENABLE_CUDASIM=1 asks for the CUDA simulator, which runs plain Python: set NUMBA_DISABLE_JIT=1 too."
            )
        return
    if is_interpreted():
        raise RuntimeError(
            "device is 'cuda', but NUMBA_DISABLE_JIT=1 leaves nothing to run on a GPU: unset it."
        )
    if importlib.util.find_spec("numba_cuda") is None:
        raise RuntimeError("device is 'cuda', which takes the package numba-cuda: pip install 'metta[cuda]'.")
    from numba import cuda

    if not cuda.is_available():
        raise RuntimeError(
            "device is 'cuda', but no NVIDIA GPU with its driver was found: leave device out to step the worlds on the processor."
        )
