#!/usr/bin/env python3
"""Learn a byte-level BPE vocabulary from text."""

from gpt2.commands.main import run_script

if __name__ == '__main__':
    run_script('train_vocabulary')
