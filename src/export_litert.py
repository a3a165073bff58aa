#!/usr/bin/env python3
"""Export a checkpoint for the LiteRT engine."""

from gpt2.commands.export import export_model
from gpt2.commands.flags import run

if __name__ == '__main__':
    run(export_model)
