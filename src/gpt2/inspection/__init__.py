"""What goes on inside a model: its activations, changes to them, what each part adds to a logit, and its neurons."""
