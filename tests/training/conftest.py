"""What several tests of training share."""

import pytest
from training_runs import TEXT, write_small

from gpt2.checkpoints import release


@pytest.fixture
def base(tmp_path, monkeypatch, encoder):
    """A folder with a model, models/base, and text.txt."""
    monkeypatch.setattr(release, 'write_meta_graph', lambda path, _: open(path, 'w').close())  # it takes long
    (tmp_path / 'text.txt').write_text(TEXT)
    write_small(tmp_path / 'models' / 'base', encoder)
    return tmp_path
