"""What the losses of a run depend on, beside its text and initial weights."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Settings:
    """steps: updates in all. batch_size: windows an update. window: tokens a window. learning_rate: the peak.
    warmup: updates until the peak. held_out: fraction of the documents."""

    steps: int
    batch_size: int
    window: int
    learning_rate: float
    warmup: int
    weight_decay: float
    held_out: float
    seed: int
