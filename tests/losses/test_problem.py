import torch

from pixelcontrast.losses.problem import Contrast, KeySet, count_positives, without_ignored


def test_positives_are_counted_without_the_anchor():
    y, z = torch.tensor([0, 0, 2, -1, 7]), torch.tensor([0, 2, 2, -1, 9, 7])
    own = torch.tensor([0, -1, 4, -1, 5])  # the third points at a key of another class
    rows, keys = torch.rand(5, 2), torch.rand(6, 2)
    for mutual in (False, True):
        for index in (None, own):
            found = count_positives(
                Contrast(rows, y, None, KeySet(keys, z, None, index), mutual, 1.0, "all")
            )
            expected = []
            for i in range(5):
                total = sum(
                    int(y[i] >= 0 and z[k] == y[i] and not (index is not None and index[i] == k))
                    for k in range(6)
                )
                if mutual:
                    total += sum(int(y[i] >= 0 and y[j] == y[i] and i != j) for j in range(5))
                expected.append(total)
            assert found.tolist() == expected


def test_ignored_labels_become_negative():
    labels = torch.tensor([0, 255, -5, 3])
    assert without_ignored(labels, 255).tolist() == [0, -1, -5, 3]
    assert without_ignored(labels, None).tolist() == [0, 255, -5, 3]
