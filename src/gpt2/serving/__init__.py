"""An HTTP server for the clients of OpenAI's completions. One process for each model computes; this one answers."""
