"""Package definition. Detectron2 is a peer that users install themselves (see README.md)."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (ROOT / "eql_d2/__init__.py").read_text()).group(1)

setup(
    name="eql_d2",
    version=VERSION,
    description="Equalization loss for long-tailed detection: Mask R-CNN on LVIS-style data",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["eql_d2", "eql_d2.*"]),
    package_data={
        "eql_d2": ["*.json"],
        "eql_d2.categories": ["tables/*.json"],
        "eql_d2.reporting": ["page.css", "page.js"],
    },
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "numpy>=1.24",
        "fvcore>=0.1.5,<0.1.6",
        "iopath>=0.1.7,<0.1.10",  # the range Detectron2 accepts; fvcore pulls it in
        "pycocotools>=2.0.7",
        "pillow>=9.4",
        "matplotlib>=3.7",
    ],
    extras_require={
        "fast": ["orjson>=3.8"],  # reads results files 2-3 times faster; json otherwise
        "test": [
            "pytest==9.0.3",
            "pytest-xdist==3.8.0",
            "hypothesis==6.155.2",
            "lvis==0.5.3",
            "orjson==3.13.0",
            "faster-coco-eval==1.8.0",
            "opencv-python-headless==5.0.0.93",
            "ruff==0.17.6",
            "mypy==2.4.1",
            "types-PyYAML==6.0.12.20261113",
        ],
    },
)
