#!/usr/bin/env python3
"""Export a checkpoint for the LiteRT engine."""

from gpt2.commands.main import run_script

if __name__ == '__main__':
    run_script('export_litert')
