"""Text as every part compares it: words, numbers, sentences, similarity."""
