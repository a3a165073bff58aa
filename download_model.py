#!/usr/bin/env python3
"""Fetch released models."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'src'))

from gpt2.commands.main import run_script

if __name__ == '__main__':
    run_script('download_model')
