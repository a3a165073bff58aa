"""GPT-2 as OpenAI released it, as a library."""
