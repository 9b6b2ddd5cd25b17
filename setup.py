"""The package's metadata: what it needs, its command, and the files that ship with it."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHIPPED = ("configs", "data")

# Two sets of versions are supported and tested: flax <= 0.12.8 breaks on jax >= 0.11.1, and newer
# ones need Python 3.12. Each bound is the version that the tests ran with.
CORE = [
    'jax==0.10.2; python_version < "3.12"',
    'flax==0.12.8; python_version < "3.12"',
    'jax>=0.11.1,<0.13; python_version >= "3.12"',
    'flax>=0.12.9,<0.13; python_version >= "3.12"',
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12.8,<0.13",
    "ml-collections>=1.1.0,<2",
    "absl-py>=2.3,<3",
    "numpy>=2.2,<3",
    "sentencepiece>=0.2.1,<0.3",
    "tokenizers>=0.22,<0.24",
    "huggingface-hub>=1.0,<3",
    "jinja2>=3.1.6,<4",
    "pyarrow>=21,<27",
    "rich>=14,<16",
    "matplotlib>=3.10,<4",
    "math-verify>=0.9.0,<0.10",
    "rouge-score>=0.1.2,<0.2",
]
# SeqIO imports all of these, and TensorFlow Text exists only for the TensorFlow of its own number.
TASKS = [
    "seqio>=0.0.20,<0.1",
    "tensorflow-datasets>=4.9.9,<5",
    "tensorflow>=2.20,<2.22",
    "tensorflow-text>=2.20,<2.22",
    # TensorFlow Datasets imports it on every Python and asks for it on old ones only.
    "importlib-resources>=6,<8",
]
LORA = ["qwix>=0.1.8,<0.2"]
SERVE = ["aiohttp>=3.14,<4"]
# In an environment without SeqIO: Beam holds protobuf below 7, and SeqIO imports what SentencePiece
# 0.2.3 generated with 7.
BEAM = ["apache-beam>=2.77,<2.78"]
# What the tests compare with. Torch of exactly this number comes without CUDA from the registry.
PARITY = ["torch==2.13.0", "transformers>=5.23,<6", "peft>=0.21,<0.22"]
# What reads the exports of a record in the tests.
EXPORTS = ["datasets>=4,<6", "opentelemetry-proto>=1.40,<2"]
# With aiohttp, so that calls to servers are tested on both Pythons.
TEST = ["pytest>=9,<10", "pytest-xdist>=3.6,<4", "hypothesis>=6.130,<7", *SERVE]


class BuildWithShippedFiles(build_py):
    """Copies configs/ and data/ into the wheel as arkjax/_shipped/; a checkout has them beside."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for name in SHIPPED:
            target = Path(self.build_lib, "arkjax", "_shipped", name)
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))


def read(name: str) -> str:
    path = ROOT / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


setup(
    name="arkjax",
    version=re.search(r'^__version__ = "(.+)"$', read("arkjax/__init__.py"), re.MULTILINE)[1],
    description="Distill a team of language-model agents into one model with Flax",
    long_description=read("README.md"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["arkjax", "arkjax.*"]),
    package_data={"arkjax": ["**/*.html", "**/*.css", "**/*.js", "**/*.json"]},
    cmdclass={"build_py": BuildWithShippedFiles},
    install_requires=CORE,
    extras_require={
        "tasks": TASKS,
        "tpu": [
            'jax[tpu]==0.10.2; python_version < "3.12"',
            'jax[tpu]>=0.11.1,<0.13; python_version >= "3.12"',
        ],
        "gpu": [
            'jax[cuda13]==0.10.2; python_version < "3.12"',
            'jax[cuda13]>=0.11.1,<0.13; python_version >= "3.12"',
        ],
        "lora": LORA,
        "serve": SERVE,
        "beam": BEAM,
        "test": TEST,
        "parity": PARITY,
        "dev": [
            *TASKS,
            *LORA,
            *TEST,
            *EXPORTS,
            "openai>=1.50,<3",
            "selenium>=4.30,<5",
            "ruff>=0.12",
        ],
    },
    entry_points={"console_scripts": ["arkjax = arkjax.cli:entry"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
