#!/usr/bin/env python3
"""Text for training, made as WebText was."""

from gpt2.commands.main import run_script

if __name__ == '__main__':
    run_script('prepare_data')
