"""What a run trains on and what it measures on."""
