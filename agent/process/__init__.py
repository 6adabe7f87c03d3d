"""The process itself: its data folder, signals, child processes and start-up checks."""
