"""The zero-shot evaluation of the paper: the tasks, their data, and the report."""
