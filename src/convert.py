#!/usr/bin/env python3
"""Convert a checkpoint from one format to another."""

from gpt2.commands.convert import convert_model
from gpt2.commands.flags import run

if __name__ == '__main__':
    run(convert_model)
