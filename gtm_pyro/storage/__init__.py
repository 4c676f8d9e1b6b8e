"""Run folders, checkpoints, shards of episodes, and how they are written."""
