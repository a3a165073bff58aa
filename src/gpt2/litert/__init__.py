"""The LiteRT engine: the graph, the exported file that holds it, and sampling with it."""
