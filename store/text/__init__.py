"""Text as all of byheart compares it: words, numbers, sentences, similarity."""
