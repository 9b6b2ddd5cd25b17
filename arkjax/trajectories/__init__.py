"""What is recorded: every call of every agent, whole, checked and resumable."""

from arkjax.trajectories.schema import Call, content_hash
from arkjax.trajectories.store import CallStore, read_run_info, write_run_info

__all__ = ["Call", "CallStore", "content_hash", "read_run_info", "write_run_info"]
