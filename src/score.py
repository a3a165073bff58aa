#!/usr/bin/env python3
"""The probability that a model gives to texts."""

from gpt2.commands.main import run_script

if __name__ == '__main__':
    run_script('score')
