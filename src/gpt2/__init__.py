"""GPT-2 as OpenAI released it, as a library."""

__version__ = '1.0.0'
