"""The network over time: what a step depends on, its loss, its reduction of features."""

import pytest
import torch

from tinyaction.models.temporal import TemporalNetwork, temporal_loss


def network(**arguments) -> TemporalNetwork:
    torch.manual_seed(0)
    return TemporalNetwork(6, 3, **{"num_reduced": 4, "num_channels": 8, "num_layers": 3, "num_stages": 2} | arguments
                           ).eval()


def test_a_step_depends_on_those_within_reach_and_on_no_other():
    net = network()
    assert net.reach == 2 * (1 + 2 + 4)
    x = torch.randn(1, 4, 60, requires_grad=True)
    net(x)[-1][0, :, 30].sum().backward()
    touched = x.grad[0].abs().sum(dim=0).nonzero().flatten()
    assert touched.min() >= 30 - net.reach and touched.max() <= 30 + net.reach and len(touched) > 20


def test_each_stage_gives_logits_and_scores_are_probabilities():
    outputs = network()(torch.randn(2, 4, 10))
    assert [tuple(one.shape) for one in outputs] == [(2, 3, 10)] * 2
    torch.testing.assert_close(network().scores(outputs[-1]).sum(dim=1), torch.ones(2, 10))
    several = network(overlaps=True).scores(torch.zeros(1, 3, 2))
    assert several.unique().tolist() == [0.5]


def test_the_reduction_keeps_the_directions_that_vary_most():
    net = network(num_reduced=2)
    torch.manual_seed(0)
    features = torch.randn(50, 6) * torch.tensor([10.0, 0.01, 0.01, 5.0, 0.01, 0.01]) + 7
    net.set_reduction(features)
    reduced = net.reduce(features)
    torch.testing.assert_close(reduced.mean(dim=0), torch.zeros(2), atol=1e-4, rtol=0)
    assert reduced.var(dim=0, unbiased=False).mean() == pytest.approx(1, abs=1e-3)
    assert abs(torch.corrcoef(torch.stack((reduced[:, 0], features[:, 0])))[0, 1]) > 0.99
    net.set_reduction(features[:2])                                    # fewer steps than directions
    assert net.basis[:, 1].abs().max() == 0 and net.basis.isfinite().all()


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
