"""What all tests share: eight pretend devices on the CPU, and no silent broadcasting."""

import os

# JAX reads these when it is first imported, so they are set before any test module is.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
_FLAG = "--xla_force_host_platform_device_count"
if _FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}=8".strip()


def pytest_configure(config):
    config.addinivalue_line("markers", "fast: quick; also run on the newest supported Python")
    config.addinivalue_line("markers", "slow: takes more than a few seconds")
