"""`arkjax trajectories`: records of calls looked at, verified, merged, exported and replayed."""
