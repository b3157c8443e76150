import numpy as np
import pytest
from PIL import Image

from pdessl.errors import ShapeError
from pdessl.evaluation.animation import rollout_gif


@pytest.mark.parametrize("shape", [(7, 20), (7, 20, 12)])
def test_every_frame_is_drawn_and_a_perfect_rollout_has_no_difference(tmp_path, shape):
    u = np.sin(np.arange(np.prod(shape))).reshape(shape)
    path = rollout_gif(tmp_path / "a.gif", u, u, np.arange(7))
    with Image.open(path) as picture:
        assert picture.n_frames == 7
        frame = np.asarray(picture.convert("RGB")).astype(int)
    panels = [frame[28:228, 10 + 210 * i : 210 + 210 * i] for i in range(3)]
    assert np.array_equal(panels[0], panels[1])
    assert panels[2][5:-5, 5:-5].std(axis=(0, 1)).max() < 0.5 * panels[0].std(axis=(0, 1)).max()


def test_long_runs_are_thinned_and_other_shapes_refused(tmp_path):
    path = rollout_gif(
        tmp_path / "a.gif", np.random.default_rng(0).random((130, 8)), np.zeros((130, 8)), np.arange(130)
    )
    with Image.open(path) as picture:
        assert picture.n_frames <= 60
    with pytest.raises(ShapeError, match=r"\(T, X\) or"):
        rollout_gif(tmp_path / "b.gif", np.zeros((3, 4)), np.zeros((3, 5)), np.arange(3))
