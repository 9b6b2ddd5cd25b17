#!/usr/bin/env bash
# Installs what the benchmarks compare ArkJAX with, each peer into an environment of its own below
# launch/bench/.peers, or below the folder given:
#   launch/bench/peers.sh [FOLDER]
# ARKJAX_PYTHON chooses the interpreter. 3 GiB, and some minutes the first time.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=launch/environment.sh
. "$root/launch/environment.sh"

peers=${1:-$root/launch/bench/.peers}
mkdir -p "$peers" || fail 5 "cannot make $peers" "Give another folder: launch/bench/peers.sh FOLDER"

# Hugging Face transformers. Torch of exactly this number comes without CUDA from the registry.
install_environment "$peers/hf" \
    torch==2.13.0 transformers==5.23.0 safetensors==0.8.0 tokenizers==0.23.3 numpy==2.4.6

# Tunix, on the JAX that ArkJAX has on Python 3.11.
install_environment "$peers/tunix" \
    google-tunix==0.1.7 jax==0.10.2 jaxlib==0.10.2 flax==0.12.8 qwix==0.1.8 optax==0.2.8 \
    orbax-checkpoint==0.12.8 transformers==5.12.1 safetensors==0.7.0 numpy==2.4.6

echo "The peers are in $peers."
