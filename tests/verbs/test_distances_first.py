"""A mistake in `eval.distances` is told before a training or a description of images, not after it."""

import pytest


@pytest.mark.parametrize("verb", [[], ["evaluate"]])
def test_a_wrong_distance_is_refused_before_anything_is_done(refused, tiny_recipe, tmp_path, verb):
    recipe = f'{tiny_recipe},eval.distances=("25m","25x")'
    said = refused(*verb, f"--config={recipe}", f"--workdir={tmp_path / 'run'}")
    assert said.splitlines() == ["config.eval.distances: '25x' is no distance; expected such as 25m or 1km"]
    assert not (tmp_path / "run").exists()
