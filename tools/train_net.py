"""Train and evaluate from one YAML file, on Detectron2 or torchvision.

python tools/train_net.py --config-file configs/quick/longtail_shapes_eql.yaml
python tools/train_net.py --config-file configs/LVISv1/eql_R_50_FPN.yaml --num-gpus 8
python tools/train_net.py --config-file F --eval-only MODEL.WEIGHTS output/model_final.pth

A folder (OUTPUT_DIR) belongs to one run: a second one needs --resume (continue it), --overwrite
(remove its files first) or another OUTPUT_DIR.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from eql_d2.command_line import choose_engine, parse_train_options, run_tool

ENGINE_PACKAGES = {"detectron2": "eql_d2.engines.d2", "torchvision": "eql_d2.engines.tv"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = parse_train_options(argv)
    engine, reason = choose_engine(options.engine)
    print(f"engine: {engine} ({reason})", flush=True)
    importlib.import_module(ENGINE_PACKAGES[engine]).run(options)
    return 0


if __name__ == "__main__":
    run_tool(main)
