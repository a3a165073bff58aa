#!/usr/bin/env python3
"""Draw samples from nothing but the end-of-text token."""

from gpt2.commands.flags import run
from gpt2.commands.generate import sample_model

if __name__ == '__main__':
    run(sample_model)
