"""Checkpoints that describe themselves, and weights that are refused when they do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from eql_d2.checkpoint import METADATA_KEY, check_finite
from eql_d2.engines.d2.compat import DetectionCheckpointer
from eql_d2.errors import UserError

# Counts of batches that batch normalisation has seen: no model reads them here, and converted
# weights lack them.
UNREAD = "num_batches_tracked"


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer with our metadata in every file and a strict mode for testing."""

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        metadata: dict[str, Any] | None = None,
        strict: bool = False,
        **checkpointables: Any,
    ) -> None:
        """Describe what to save.

        Args:
            model: with or without its parallel wrapper.
            save_dir: ``OUTPUT_DIR``.
            metadata: :func:`eql_d2.checkpoint.checkpoint_metadata`, saved in every file.
            strict: refuse weights that leave a part of the model as it was initialised. Without
                it, mismatched parts are skipped with a warning, as fine-tuning wants.
            checkpointables: objects with ``state_dict``, saved and resumed by their names.
        """
        super().__init__(model, save_dir, **checkpointables)
        self._metadata = metadata
        self._strict = strict

    def save(self, name: str, **extra: Any) -> None:
        """Save ``name.pth`` and name it in ``last_checkpoint``.

        Raises:
            UserError: weights, buffers or momentum are NaN or infinite; nothing is written.
        """
        if self.save_dir and self.save_to_disk:
            states = {key: part.state_dict() for key, part in self.checkpointables.items()}
            file = Path(self.save_dir) / f"{name}.pth"
            check_finite({**self.model.state_dict(), **states}, file, saving=True)
        if self._metadata is not None:
            iteration = extra.get("iteration", self._metadata.get("iteration"))
            extra[METADATA_KEY] = {**self._metadata, "iteration": iteration}
        super().save(name, **extra)

    def _load_file(self, filename: str) -> dict[str, Any]:
        """Read a file, and refuse one that holds NaN or infinity."""
        content = super()._load_file(filename)
        self._convert_ndarray_to_tensor(content["model"])
        check_finite({**content["model"], "trainer": content.get("trainer")}, filename)
        return content

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        """Refuse weights of the torchvision engine, whose parameters have other names."""
        engine = checkpoint.get(METADATA_KEY, {}).get("engine", "detectron2")
        if engine != "detectron2":
            raise UserError(
                f"these weights were trained by the {engine} engine; go on with that engine "
                f"(--engine {engine}), or give weights of Detectron2"
            )
        return super()._load_model(checkpoint)

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        if self._strict:
            problems = _problems(incompatible)
            if problems:
                raise UserError("; ".join(problems))
        super()._log_incompatible_keys(incompatible)


def _problems(incompatible: Any) -> list[str]:
    problems = [
        f"{name} has shape {list(found)} in the weights but {list(wanted)} in the model"
        for name, found, wanted in incompatible.incorrect_shapes
    ]
    reported = {name for name, _, _ in incompatible.incorrect_shapes}
    missing = [
        name
        for name in incompatible.missing_keys
        if not name.endswith(UNREAD) and name not in reported
    ]
    if missing:
        problems.append(f"{len(missing)} parameters are not in the weights (first: {missing[0]})")
    if problems:
        problems.append(
            "these weights were trained with another configuration; check MODEL.EQL.LOSS.NAME "
            "(which decides the classifier's width), the number of categories, the mask head and "
            "MODEL.RESNETS.DEPTH"
        )
    return problems
