"""Where and in which precision networks run."""

from contextlib import AbstractContextManager

import torch

from dark_halo_scope.core.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16")


def resolve_device(name: str) -> torch.device:
    """The device called `name`; `auto` is the first CUDA device where there is one.

    Raises:
        ConfigError: an unknown name, or CUDA where there is none.
    """
    if name not in DEVICES:
        raise ConfigError(f"There is no device {name!r}; choose one of {', '.join(DEVICES)}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("Device cuda was asked for and this machine has no usable one; ask for auto or cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """The type that convolutions compute in; weights stay float32.

    `auto` is bfloat16 where the hardware multiplies it: CUDA since Ampere, and CPUs with AVX-512 BF16 (twice as fast
    there as float32 on our networks; on other CPUs it is emulated and slower).

    Raises:
        ConfigError: an unknown name.
    """
    if name not in PRECISIONS:
        raise ConfigError(f"There is no precision {name!r}; choose one of {', '.join(PRECISIONS)}.")
    if name != "auto":
        return torch.float32 if name == "float32" else torch.bfloat16
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """Mixed precision with `dtype`; with float32, nothing changes."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def exact_convolutions() -> AbstractContextManager[None]:
    """Convolutions in float32 as its name says: by default cuDNN rounds what goes into them to 10 bits (TF32).

    A finder that was frozen on a CPU could then answer otherwise on a GPU than its card allows.
    """
    now = torch.backends.cudnn
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=now.enabled, benchmark=now.benchmark, deterministic=now.deterministic, allow_tf32=False
    )
    return flags
