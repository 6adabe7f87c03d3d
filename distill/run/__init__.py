"""What a run leaves on disk: folders, resume points, curves, the published adapter."""
