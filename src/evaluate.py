#!/usr/bin/env python3
"""The zero-shot evaluation of the GPT-2 paper."""

from gpt2.commands.evaluate import evaluate_model
from gpt2.commands.flags import run

if __name__ == '__main__':
    run(evaluate_model)
