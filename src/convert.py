#!/usr/bin/env python3
"""Convert a checkpoint from one format to another."""

from gpt2.commands.main import run_script

if __name__ == '__main__':
    run_script('convert')
