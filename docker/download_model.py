#!/usr/bin/env python3
"""download_model.py as the image has it: what it fetches goes to the volume, not beside the sources."""

import runpy
import sys

sys.argv[1:1] = ['--models_dir', '/gpt-2/models']  # the last of several counts, so a user's own does
runpy.run_path('/opt/gpt-2/download_model.py', run_name='__main__')
