"""Equalization loss (Tan et al., CVPR 2020) and its relatives for long-tailed detection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eql_d2.engines.d2 import EQLCascadeROIHeads, EQLROIHeads, add_eql_config

__version__ = "0.1.0"

# Loaded on first use (PEP 562): they need Detectron2, and `import eql_d2` must not.
_DETECTRON2_NAMES = ("EQLCascadeROIHeads", "EQLROIHeads", "add_eql_config")

__all__ = ["EQLCascadeROIHeads", "EQLROIHeads", "__version__", "add_eql_config"]


def __getattr__(name: str) -> Any:
    """Load a Detectron2 name.

    Raises:
        MissingPackageError: Detectron2 is not installed; the message holds the install line.
        AttributeError: no such name.
    """
    if name not in _DETECTRON2_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from eql_d2.errors import MissingPackageError

    try:
        from eql_d2.engines import d2
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"eql_d2.{name} needs {error.name}, which is not installed; the README's two install "
            "commands (eql_d2's own, then Detectron2's) bring it"
        ) from error
    return getattr(d2, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_DETECTRON2_NAMES])
