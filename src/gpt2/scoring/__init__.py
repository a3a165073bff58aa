"""The probability of texts: streams of text, windows, log-probabilities."""
