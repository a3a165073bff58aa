#!/usr/bin/env python3
"""Serve models over HTTP."""

from gpt2.commands.main import run_script

if __name__ == '__main__':
    run_script('serve')
