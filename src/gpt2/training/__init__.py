"""Data, optimizer and loop of training, and the folder of a model in training."""
