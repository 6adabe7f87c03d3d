"""The process itself: its data folder, signals, children and start-up checks."""
