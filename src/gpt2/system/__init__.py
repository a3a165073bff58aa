"""Files written whole, downloads, signals, and TensorFlow without its chatter."""
