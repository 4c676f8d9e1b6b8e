"""Alignments recover known maps, are the best of their kind, and refuse what does not fit."""

import math

import pytest
import torch

from gtm_pyro.evaluation.alignment import Alignment, best_affine, best_similarity, robust_affine, root_mean_square


def points(seed: int = 0, count: int = 200, dim: int = 2) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turned(angle: float, mirrored: bool) -> torch.Tensor:
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    return turn @ torch.diag(torch.tensor([1.0, -1.0 if mirrored else 1.0], dtype=torch.float64))


def test_affine_recovers_any_affine_map():
    matrix, offset = torch.tensor([[2.0, 0.7], [-0.3, 5.0]]).double(), torch.tensor([4.0, -1.0]).double()
    s = points()
    fit = best_affine(s, s @ matrix.mT + offset)
    torch.testing.assert_close(fit.matrix, matrix)
    torch.testing.assert_close(fit.offset, offset)


@pytest.mark.parametrize("mirrored", [False, True])
def test_similarity_recovers_turn_mirror_scale_and_shift(mirrored):
    matrix, offset = 3.5 * turned(0.8, mirrored), torch.tensor([4.0, -1.0]).double()
    s = points()
    fit = best_similarity(s, s @ matrix.mT + offset)
    torch.testing.assert_close(fit.matrix, matrix)
    torch.testing.assert_close(fit.offset, offset)


def test_similarity_of_stretched_states_keeps_equal_axes_and_is_worse_than_affine():
    s = points()
    poses = s * torch.tensor([1.0, 3.0]).double()
    similar, affine = best_similarity(s, poses), best_affine(s, poses)
    gram = similar.matrix @ similar.matrix.mT
    torch.testing.assert_close(gram, gram[0, 0] * torch.eye(2).double())
    assert root_mean_square(affine(s) - poses) < 1e-9
    assert root_mean_square(similar(s) - poses) > 0.5


def test_no_perturbed_similarity_fits_better():
    s = points()
    poses = s @ turned(0.3, True).mT * 2 + points(seed=1)
    best = best_similarity(s, poses)
    least = root_mean_square(best(s) - poses)
    scale = best.matrix.det().abs().sqrt()
    for mirrored in (False, True):
        for angle in torch.linspace(0, 2 * math.pi, 100).tolist():
            for factor in (0.9, 1.0, 1.1):
                matrix = factor * scale * turned(angle, mirrored)
                other = Alignment(matrix, poses.mean(0) - matrix @ s.mean(0))
                assert root_mean_square(other(s) - poses) >= least - 1e-12


def test_fits_pool_all_leading_dimensions_and_keep_the_dtype_of_the_states():
    s = points().float().reshape(4, 50, 2)
    fit = best_affine(s, 2 * s + 1)
    assert fit(s).dtype == torch.float32 and fit(s).shape == (4, 50, 2)
    torch.testing.assert_close(fit(s), 2 * s + 1)
    torch.testing.assert_close(fit.inverse(2 * s + 1), s)


def test_states_on_a_line_and_states_that_never_move():
    line = torch.stack([torch.arange(5.0), torch.arange(5.0)], -1)
    assert root_mean_square(best_affine(line, line * 3)(line) - line * 3) < 1e-5
    still = torch.ones(5, 2)
    for fit in (best_affine(still, line), best_similarity(still, line)):
        torch.testing.assert_close(fit(still), torch.full((5, 2), 2.0))


def test_other_dimensions_fit_affinely_only():
    s = points(dim=3)
    assert root_mean_square(best_affine(s, s[:, :2])(s) - s[:, :2]) < 1e-9
    with pytest.raises(ValueError, match=r"states: expected state_dim = pose_dim = 2 for a similarity, got 3"):
        best_similarity(s, s[:, :2])


def test_points_that_do_not_pair_are_refused():
    with pytest.raises(ValueError, match=r"got \(200, 2\) and \(199, 2\)"):
        best_affine(points(), points(count=199))


def test_root_mean_square_is_of_lengths_not_of_coordinates():
    assert root_mean_square(torch.tensor([[3.0, 4.0], [0.0, 0.0]])) == pytest.approx(math.sqrt(12.5))


def test_a_robust_fit_leaves_out_what_was_lost() -> None:
    """A tenth of the points is a cell off: the others are fitted exactly, where least squares is bent."""
    torch.manual_seed(0)
    states = torch.randn(200, 2, dtype=torch.float64)
    poses = states @ torch.tensor([[2.0, 0.5], [-1.0, 1.0]], dtype=torch.float64) + 3
    poses[:20, 0] += 1
    assert root_mean_square(robust_affine(states, poses)(states[20:]) - poses[20:]) < 1e-9
    assert root_mean_square(best_affine(states, poses)(states[20:]) - poses[20:]) > 0.05
