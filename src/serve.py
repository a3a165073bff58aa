#!/usr/bin/env python3
"""Serve models over HTTP."""

from gpt2.commands.flags import run
from gpt2.commands.serve import serve_models

if __name__ == '__main__':
    run(serve_models)
