"""`python -m gpt2` is the console command."""

from gpt2.commands.main import main

main()
