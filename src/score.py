#!/usr/bin/env python3
"""The probability that a model gives to texts."""

from gpt2.commands.flags import run
from gpt2.commands.score import score_files

if __name__ == '__main__':
    run(score_files)
