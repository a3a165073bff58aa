#!/usr/bin/env python3
"""How much of test sets a corpus has too, as the GPT-2 paper counts it."""

from gpt2.commands.main import run_script

if __name__ == '__main__':
    run_script('overlap')
