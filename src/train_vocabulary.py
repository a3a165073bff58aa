#!/usr/bin/env python3
"""Learn a byte-level BPE vocabulary from text."""

from gpt2.commands.flags import run
from gpt2.commands.train_vocabulary import train_vocabulary

if __name__ == '__main__':
    run(train_vocabulary)
