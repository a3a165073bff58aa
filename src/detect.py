#!/usr/bin/env python3
"""Look at a text with a model's eyes, and tell its text from people's."""

from gpt2.commands.main import run_script

if __name__ == '__main__':
    run_script('detect')
