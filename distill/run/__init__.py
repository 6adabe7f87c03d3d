"""What a run leaves on disk: folders, checkpoints, curves, the published adapter."""
