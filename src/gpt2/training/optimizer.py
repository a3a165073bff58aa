"""AdamW and the rate it moves at."""

import math


def learning_rate(settings, step):
    """Linear warm-up, then a cosine down to a tenth of the peak at the last step."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    progress = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * (0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2)


def optimizer_shapes(shapes):
    """Shapes of AdamW's two moments for each of the model's variables, and of its step count."""
    moments = {f'{name}/{moment}': shape for name, shape in shapes.items() for moment in ('adam_m', 'adam_v')}
    return moments | {'step': []}


def adamw(variable, gradient, m, v, rate, step, decay, beta_1=0.9, beta_2=0.95, epsilon=1e-8):
    """One step of AdamW (Loshchilov & Hutter 2019, algorithm 2), the decay on matrices only."""
    from gpt2.system.tensorflow import tf

    m.assign(beta_1 * m + (1 - beta_1) * gradient)
    v.assign(beta_2 * v + (1 - beta_2) * tf.square(gradient))
    update = m / (1 - beta_1**step) / (tf.sqrt(v / (1 - beta_2**step)) + epsilon)
    if variable.shape.rank > 1:
        update += decay * variable
    variable.assign_sub(rate * update)
