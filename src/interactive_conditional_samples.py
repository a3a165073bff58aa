#!/usr/bin/env python3
"""Ask for prompts and continue each."""

from gpt2.commands.main import run_script

if __name__ == '__main__':
    run_script('interactive_conditional_samples')
