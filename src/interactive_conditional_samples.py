#!/usr/bin/env python3
"""Ask for prompts and continue each."""

from gpt2.commands.complete import interact_model
from gpt2.commands.flags import run

if __name__ == '__main__':
    run(interact_model)
