"""Text for training, made as WebText was: from links to clean, deduplicated token files."""
