"""Lets `python -m src.<script>` find the modules here by the names a script in this folder uses."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
