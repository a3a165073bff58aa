#!/usr/bin/env python3
"""Train a GPT-2, from scratch or from any checkpoint, on text files."""

from gpt2.commands.main import run_script

if __name__ == '__main__':
    run_script('train')
