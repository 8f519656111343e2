"""The network over time: what a step depends on, its loss, its reduction of features."""

import pytest
import torch

from tinyaction.models.temporal import TemporalNetwork, contrast, temporal_loss


def network(**arguments) -> TemporalNetwork:
    torch.manual_seed(0)
    return TemporalNetwork(6, 3, **{"num_reduced": 4, "num_channels": 8, "num_layers": 3, "num_stages": 2} | arguments
                           ).eval()


def test_a_step_depends_on_those_within_reach_and_on_no_other():
    net = network()
    assert net.reach == 2 * (1 + 2 + 4) + 32
    x = torch.randn(1, 8, 150, requires_grad=True)
    net(x)[-1][0, :, 70].sum().backward()
    touched = x.grad[0].abs().sum(dim=0).nonzero().flatten()
    assert touched.min() == 70 - net.reach and touched.max() == 70 + net.reach


def test_each_stage_gives_logits_and_scores_are_probabilities():
    outputs = network()(torch.randn(2, 8, 10))
    assert [tuple(one.shape) for one in outputs] == [(2, 3, 10)] * 2
    torch.testing.assert_close(network().scores(outputs[-1]).sum(dim=1), torch.ones(2, 10))
    several = network(overlaps=True).scores(torch.zeros(1, 3, 2))
    assert several.unique().tolist() == [0.5]


def test_the_reduction_keeps_the_directions_that_vary_most():
    net = network(num_reduced=2)
    torch.manual_seed(0)
    deviations = torch.randn(50, 6) * torch.tensor([10.0, 0.01, 0.01, 5.0, 0.01, 0.01])
    changes = torch.randn(50, 6) * torch.tensor([0.01, 0.01, 3.0, 0.01, 0.01, 0.01])
    net.set_reduction(torch.full((6,), 7.0), deviations, changes)
    reduced = net.reduce(deviations + 7)
    assert reduced[:, :2].square().mean() == pytest.approx(1, abs=1e-3)
    assert abs(torch.corrcoef(torch.stack((reduced[:, 0], deviations[:, 0])))[0, 1]) > 0.99
    assert net.basis.abs().argmax(dim=0).tolist()[:3] == [0, 3, 2]
    net.set_reduction(torch.zeros(6), deviations[:1], changes[:0])     # fewer steps than directions, or none
    assert net.basis[:, 1:].abs().max() == 0 and net.basis.isfinite().all()


def test_the_contrast_is_what_differs_from_around_and_what_changes():
    steps = torch.arange(100.0)
    still, growing, event = torch.full((100,), 7.0), 2 * steps, (steps == 50).float()
    levels, changes, slower = contrast(torch.stack((still, event, still, growing))[None])[0].split(2)  # (2, 100) each
    assert levels[0].abs().max() < 1e-5 and changes[0].abs().max() == 0 and slower[0].abs().max() == 0
    assert levels[1, [50, 51, 18, 17]].tolist() == pytest.approx([1 - 1 / 65, -1 / 65, -1 / 51, 0])  # 18: 0 to 50
    assert changes[1].tolist() == [2] + 98 * [4] + [2]                 # the first and last step are repeated beyond
    assert slower[1, 3:-3].tolist() == 94 * [12]
    place = torch.randn(1, 4, 1)
    torch.testing.assert_close(contrast(torch.randn(1, 4, 9, generator=torch.Generator().manual_seed(0)) + place),
                               contrast(torch.randn(1, 4, 9, generator=torch.Generator().manual_seed(0))))


def test_the_loss_is_cross_entropy_and_the_change_from_step_to_step():
    logits = torch.tensor([[[2.0, 2.0, -1.0], [0.0, 0.0, 1.0]]])       # (1, 2, 3)
    targets, seen = torch.tensor([[0, 0, 1]]), torch.ones(1, 3, dtype=torch.bool)
    logs = logits.log_softmax(dim=1)[0]
    cross = -(logs[0, 0] + logs[0, 1] + logs[1, 2]) / 3
    smooth = ((logs[:, 2] - logs[:, 1]) ** 2).sum() / 4                # two pairs of two classes; one pair is equal
    torch.testing.assert_close(temporal_loss([logits], targets, seen), cross + 0.15 * smooth)
    torch.testing.assert_close(temporal_loss([logits, logits], targets, seen), 2 * (cross + 0.15 * smooth))
    seen = torch.tensor([[True, True, False]])                         # padding counts nowhere
    torch.testing.assert_close(temporal_loss([logits], targets, seen), -(logs[0, 0] + logs[0, 1]) / 2)


def test_several_classes_at_once_have_a_loss_each():
    logits = torch.zeros(1, 2, 1)
    loss = temporal_loss([logits], torch.tensor([[[1.0], [0.0]]]), torch.ones(1, 1, dtype=torch.bool))
    torch.testing.assert_close(loss, 2 * torch.tensor(2.0).log())


@pytest.mark.parametrize("arguments", [{"num_layers": 99}, {"num_stages": 0}, {"num_features": 10**9}])
def test_impossible_numbers_are_refused_before_anything_large_is_made(arguments):
    with pytest.raises(ValueError, match="must be 1 to 12, 1 to 8"):
        TemporalNetwork(**{"num_features": 6, "num_classes": 3} | arguments)
