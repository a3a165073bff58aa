#!/usr/bin/env python3
"""See what goes on inside a model, and what its neurons do."""

from gpt2.commands.main import run_script

if __name__ == '__main__':
    run_script('inspect_model')
