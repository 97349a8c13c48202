"""Checkpoints that describe themselves, and weights that are refused when they do not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

from torch import nn

from eql_d2.checkpoint import (
    METADATA_KEY,
    check_finite,
    load_checkpoint,
    model_state,
    stored_number,
)
from eql_d2.engines.d2.compat import DetectionCheckpointer
from eql_d2.errors import UserError

# Counts of batches that batch normalisation has seen: no model reads them here, and converted
# weights lack them.
UNREAD = "num_batches_tracked"


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer with our metadata in every file and a strict mode for testing."""

    _parsed_url_during_load: Any

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
        self._resuming = False

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

    def load(self, path: str, checkpointables: Sequence[str] | None = None) -> dict[str, Any]:
        """Load a file or an address, as Detectron2 does, and never run code from it.

        Args:
            path: ``?matching_heuristics=True`` after it matches names as in a model zoo's files;
                empty loads nothing.
            checkpointables: names of what is loaded beside the model; all where None.

        Returns:
            what else the file holds.

        Raises:
            UserError: the file cannot be used; the message names it.
        """
        self._resuming = checkpointables is None and bool(self.checkpointables)
        local = urlparse(path)._replace(query="").geturl()
        if path and not urlparse(path).scheme and not Path(local).is_file():
            raise UserError(
                f"{local} is no file of weights; Detectron2 takes what follows ? in a "
                f"path for options, got {path}"
            )
        try:
            return super().load(path, checkpointables)
        finally:
            self._parsed_url_during_load = None  # else what failed blocks the next one

    def _load_file(self, filename: str) -> dict[str, Any]:
        """Read a file in the forms that Detectron2 knows by their endings."""
        content = load_checkpoint(filename)
        if self._resuming:
            _check_resumable(content, self.checkpointables, filename)
        if filename.endswith(".pyth"):  # pycls
            named = model_state(content.get("model_state"), filename)
            weights = {k: v for k, v in named.items() if not k.endswith(UNREAD)}
            return {"model": weights, "__author__": "pycls", "matching_heuristics": True}
        if filename.endswith(".pkl") and not ("model" in content and "__author__" in content):
            named = model_state(content.get("blobs", content), filename)
            weights = {k: v for k, v in named.items() if not k.endswith("_momentum")}
            return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}
        loaded: dict[str, Any] = content if "model" in content else {"model": content}
        options = parse_qs(self._parsed_url_during_load.query)
        if options.pop("matching_heuristics", ["False"]) == ["True"]:
            loaded["matching_heuristics"] = True
        if options:
            raise UserError(
                f"{filename}: unknown option {', '.join(options)} after ? in its path; there is "
                "matching_heuristics=True"
            )
        return {**loaded, "model": model_state(loaded["model"], filename)}

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        """Refuse weights of the torchvision engine, and weights of which nothing is used."""
        metadata = checkpoint.get(METADATA_KEY)
        engine = (
            metadata.get("engine", "detectron2") if isinstance(metadata, dict) else "detectron2"
        )
        if engine != "detectron2":
            raise UserError(
                f"{self._source}: these weights were trained by the {engine} engine; use "
                f"that engine (--engine {engine}), or give weights of Detectron2"
            )
        count = len(checkpoint["model"])
        try:
            incompatible = super()._load_model(checkpoint)
        # What Detectron2's conversion of names raises on names that it does not know.
        except (AssertionError, LookupError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{self._source}: the names of {count} weights cannot be matched with the model's: "
                f"[{type(error).__name__}: {error}]"
            ) from error
        own = {name for name in self.model.state_dict() if not name.endswith(UNREAD)}
        if own <= set(incompatible.missing_keys):
            raise UserError(
                f"{self._source}: none of {count} weights fits the model by name and shape; give "
                'weights of Detectron2 or its model zoo, or MODEL.WEIGHTS "" to train from scratch'
            )
        return incompatible

    @property
    def _source(self) -> str:
        """What is being loaded, for messages."""
        return self._parsed_url_during_load.geturl()

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        if self._strict:
            problems = _problems(incompatible)
            if problems:
                raise UserError(f"{self._source}: {'; '.join(problems)}")
        super()._log_incompatible_keys(incompatible)


def _check_resumable(content: dict[str, Any], wanted: Mapping[str, Any], filename: str) -> None:
    missing = {"model", "iteration", *wanted} - set(content)
    if missing:
        raise UserError(
            f"{filename} cannot be resumed: it lacks {', '.join(sorted(missing))}. To start from "
            "its weights, give it as MODEL.WEIGHTS without --resume"
        )
    stored_number(content, "iteration", filename)


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
