"""What is measured: before training, of the candidate, and for the identity probe."""
