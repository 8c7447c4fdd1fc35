"""Mini-batch k-means: the update by hand, every stream, two processes as one."""

import copy

import pytest
import torch
import torch.nn.functional as F
from tests.gloo import two_processes

from pixelcontrast.core.errors import DataError, TrainingError
from pixelcontrast.memory import MiniBatchKMeans


def drawn(rows, dim, seed=0):
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def started(rows, clusters, *, seed=0, **options):
    kmeans = MiniBatchKMeans(clusters, rows.shape[1], spherical=options.pop("spherical", False))
    kmeans.start(rows, torch.Generator().manual_seed(seed), **options)
    return kmeans


def test_update_by_hand():
    kmeans = MiniBatchKMeans(1, 2)
    kmeans.start(torch.zeros(3, 2), init=torch.zeros(1, 2), iterations=0)
    kmeans.update(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert kmeans.counts.tolist() == [5]
    torch.testing.assert_close(kmeans.centroids, torch.tensor([[0.4, 0.0]]))
    assert float(kmeans.loss) == pytest.approx(0.5)  # 0 at the start, 1 in the update


@pytest.mark.parametrize("spherical", [False, True])
def test_means_are_those_of_everything_assigned(spherical):
    rows = drawn(2000, 6)
    rows = F.normalize(rows, dim=1) if spherical else rows
    kmeans = MiniBatchKMeans(5, 6, spherical=spherical)
    start, *batches = rows.split(400)
    kmeans.start(start, init=start[:5], iterations=0)
    sums = kmeans.means.double() * kmeans.counts[:, None]
    distances = [float(kmeans.loss)]
    for batch in batches:
        labels, centroids = kmeans.assign(batch), kmeans.centroids
        distances.append(float((batch - centroids[labels]).square().sum(1).mean()))
        for k in range(5):
            sums[k] += batch[labels == k].double().sum(0)
        kmeans.update(batch)
        torch.testing.assert_close(
            kmeans.means, (sums / kmeans.counts[:, None]).float(), rtol=1e-5, atol=1e-6
        )
    assert kmeans.counts.sum() == 2000
    assert float(kmeans.loss) == pytest.approx(sum(distances) / len(distances), rel=1e-5)
    lengths = kmeans.centroids.norm(dim=1)
    if spherical:
        torch.testing.assert_close(lengths, torch.ones(5))
        assert (kmeans.means.norm(dim=1) < 0.99).all()
        logits = batch @ kmeans.centroids.T
        assert torch.equal(kmeans.assign(batch), logits.argmax(1))


def test_a_cluster_that_is_not_met_stays():
    kmeans = MiniBatchKMeans(2, 2)
    init = torch.tensor([[0.0, 0.0], [9.0, 9.0]])
    kmeans.start(torch.zeros(4, 2), init=init, iterations=0)
    kmeans.update(torch.ones(3, 2))
    assert torch.equal(kmeans.centroids[1], init[1])
    assert kmeans.counts.tolist() == [7, 0]


def test_starts_from_drawn_rows_and_forgets():
    rows = drawn(500, 4)
    first = started(rows, 8, iterations=0)
    assert len({tuple(row) for row in first.means.tolist()}) == 8
    assert {tuple(row) for row in first.means.tolist()} <= {tuple(row) for row in rows.tolist()}
    again, other = started(rows, 8, iterations=0), started(rows, 8, seed=1, iterations=0)
    assert torch.equal(first.means, again.means)
    assert not torch.equal(first.means, other.means)
    again.update(rows)
    again.start(rows, torch.Generator().manual_seed(0), iterations=0)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_state_is_in_the_checkpoint():
    kmeans = started(drawn(300, 3), 4)
    kmeans.update(drawn(50, 3, 1))
    other = MiniBatchKMeans(4, 3)
    other.load_state_dict(copy.deepcopy(kmeans.state_dict()))
    for each in (kmeans, other):
        each.update(drawn(50, 3, 2))
    assert torch.equal(kmeans.centroids, other.centroids)
    assert kmeans.loss == other.loss


def test_fewer_pixels_than_clusters_is_refused():
    with pytest.raises(DataError, match="7 clusters need at least as many pixels, there are 6"):
        started(drawn(6, 2), 7)


def test_as_many_pixels_as_clusters_works_with_a_warning():
    with pytest.warns(UserWarning, match="6 pixels are few for 6 clusters"):
        kmeans = started(drawn(6, 2), 6)
    assert kmeans.counts.tolist() == [1] * 6


def test_too_few_different_pixels_warn():
    rows = torch.eye(2).repeat(100, 1)
    with pytest.warns(UserWarning, match="3 of 5 clusters stay empty"):
        kmeans = started(rows, 5)
    kmeans.update(rows)
    assert kmeans.centroids.isfinite().all()
    assert sorted(kmeans.counts.tolist()) == [0, 0, 0, 200, 200]


def test_not_finite_names_the_place_and_changes_nothing():
    kmeans = started(drawn(300, 3), 4)
    before = copy.deepcopy(kmeans.state_dict())
    rows = drawn(20, 3)
    rows[3] = float("nan")
    with pytest.raises(TrainingError, match=r"street\.png"):
        kmeans.update(rows, where="street.png")
    for name, value in before.items():
        assert torch.equal(value, kmeans.state_dict()[name]), name


def test_no_gradient_and_no_rows():
    kmeans = started(drawn(300, 3), 4)
    rows = drawn(10, 3).requires_grad_()
    kmeans.update(rows * 2)
    assert not kmeans.centroids.requires_grad
    counts = kmeans.counts.clone()
    kmeans.update(rows[:0])
    assert torch.equal(kmeans.counts, counts)
    assert kmeans.assign(rows[:0]).shape == (0,)


def clustered(process, processes, spherical):
    """Start and two updates; the processes hold uneven shares, once none."""
    generator = torch.Generator().manual_seed(3)
    parts = [torch.randn(900, 5, generator=generator) for _ in range(3)]
    if spherical:
        parts = [F.normalize(part, dim=1) for part in parts]
    if processes == 2:
        cuts = [200, 500, 900]  # the second process has no row in the last batch
        parts = [(part[:cut], part[cut:])[process] for part, cut in zip(parts, cuts, strict=True)]
    kmeans = MiniBatchKMeans(7, 5, spherical=spherical)
    kmeans.start(parts[0], torch.Generator().manual_seed(1), iterations=6)
    for part in parts[1:]:
        kmeans.update(part)
    return {name: value.numpy() for name, value in kmeans.state_dict().items()}


def both(process):
    return [clustered(process, 2, spherical) for spherical in (False, True)]


def refused(process):
    """Both processes must stop, though only one has the bad row, or too few."""
    kmeans = MiniBatchKMeans(3, 2)
    rows = torch.ones(4, 2)
    kmeans.start(rows * (1 + process), torch.Generator().manual_seed(0), iterations=1)
    if process:
        rows[0, 0] = float("nan")
    try:
        kmeans.update(rows)
    except TrainingError:
        return 1
    return 0


def test_two_processes_are_one():
    found = two_processes(both)
    for place, spherical in enumerate((False, True)):
        expected = clustered(0, 1, spherical)
        for name, value in expected.items():
            one = torch.as_tensor(value)
            two = [torch.as_tensor(states[place][name]) for states in found]
            assert torch.equal(two[0], two[1]), name
            torch.testing.assert_close(two[0], one, rtol=1e-5, atol=1e-6, msg=name)
    assert two_processes(refused) == [1, 1]
