"""What SavedEpisodes tells of recordings that seem to be meant in another way, or that its windows do not suit."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from folder_cases import loaded

from gtm_pyro.episodes import Episodes, save_shards
from gtm_pyro.errors import ConfigError, EpisodesError
from gtm_pyro.tasks import ImageNavigation, SavedEpisodes


def test_saved_episodes_tell_doubts_once_and_name_the_shard(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    grid = ImageNavigation().sample(16, num_observed=100, num_predicted=0, seed=0)
    save_shards(replace(grid, actions=grid.actions.roll(-1, 1), validate=True), tmp_path, shard_size=8)
    with caplog.at_level(logging.WARNING):
        SavedEpisodes(str(tmp_path))
    (said,) = caplog.messages
    assert "episodes-00000.npz: actions[:, t] seem to be those taken at step t" in said and "your_data.md" in said


# which steps


def test_what_a_shard_has_for_predicting_is_not_memorised(tmp_path: Path) -> None:
    step = torch.arange(30.0).expand(4, 30)
    frames = (step / 30)[..., None, None, None].expand(4, 30, 1, 2, 2)
    save_shards(Episodes(frames, torch.stack([step, -step], -1), num_observed=12), tmp_path)
    data = SavedEpisodes(str(tmp_path), test_fraction=1)
    drawn = data.sample(200, num_observed=5, num_predicted=6, seed=0, split="test")
    first = drawn.actions[:, 0, 0]
    assert first.min() == 0 and first.max() == 12 - 5
    assert data.sample(9, num_observed=12, num_predicted=18, seed=0, split="test").actions[:, 0, 0].eq(0).all()
    with pytest.raises(ConfigError, match=r"num_observed: expected at most 12, .* say num_observed=12, got 13"):
        data.sample(1, num_observed=13, num_predicted=1, seed=0, split="test")
    with pytest.raises(ConfigError, match="num_observed .* num_predicted: expected at most 30"):
        data.sample(1, num_observed=12, num_predicted=19, seed=0, split="test")


def test_windows_from_mid_episode_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_shards(Episodes(torch.rand(5, 20, 3, 4, 4), torch.randn(5, 20, 2), 20), tmp_path)
    asked: Any = {"num_observed": 4, "num_predicted": 1}
    with caplog.at_level(logging.WARNING):
        data = SavedEpisodes(str(tmp_path))
        assert data.mid_episode_share(**asked) == 1 - 1 / 16
        for seed in range(3):
            data.sample(2, **asked, seed=seed)
        (said,) = caplog.messages
        assert "93.8% of windows of 5 steps start in mid-episode" in said and "--data.from_start true" in said
        caplog.clear()
        whole = SavedEpisodes(str(tmp_path), from_start=True)
        assert whole.mid_episode_share(**asked) == 0
        starts = whole.sample(20, **asked, seed=0).frames[:, 0]
        data.sample(20, num_observed=19, num_predicted=1, seed=0)
    assert not caplog.messages
    known = loaded(tmp_path).frames[:4, 0]
    assert all((frame == known).flatten(1).all(-1).any() for frame in starts)


def test_more_windows_than_there_are_to_test_on_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_shards(Episodes(torch.rand(10, 5, 3, 4, 4), torch.randn(10, 5, 2), 5), tmp_path)
    data = SavedEpisodes(str(tmp_path))
    asked: Any = {"num_observed": 4, "num_predicted": 1, "seed": 0}
    with caplog.at_level(logging.WARNING):
        data.sample(64, **asked)  # to train on, that is as it should be
        data.sample(2, **asked, split="test")
        assert not caplog.messages
        for _ in range(2):
            data.sample(64, **asked, split="test")
    (said,) = caplog.messages
    assert "64 windows are drawn to test on, of 2 that there are, of 5 steps each in 2 episodes" in said


def test_actions_that_are_all_zero(tmp_path: Path) -> None:
    save_shards(Episodes(torch.rand(5, 20, 3, 4, 4), torch.zeros(5, 20, 2), 20), tmp_path)
    with pytest.raises(EpisodesError, match="actions: expected some that are not 0, got zeros throughout"):
        SavedEpisodes(str(tmp_path))
