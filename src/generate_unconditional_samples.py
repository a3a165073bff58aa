#!/usr/bin/env python3
"""Draw samples from nothing but the end-of-text token."""

from gpt2.commands.main import run_script

if __name__ == '__main__':
    run_script('generate_unconditional_samples')
