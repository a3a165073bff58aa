"""Machine or human: what a model finds likely in a text, and detectors trained on texts of both."""
