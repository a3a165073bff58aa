#!/usr/bin/env python3
"""The zero-shot evaluation of the GPT-2 paper."""

from gpt2.commands.main import run_script

if __name__ == '__main__':
    run_script('evaluate')
