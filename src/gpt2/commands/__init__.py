"""The commands: flags made strict, and a function for each."""
