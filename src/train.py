#!/usr/bin/env python3
"""Train a GPT-2, from scratch or from any checkpoint, on text files."""

from gpt2.commands.flags import run
from gpt2.commands.train import train_model

if __name__ == '__main__':
    run(train_model)
