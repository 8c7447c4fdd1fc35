import torch

from pixelcontrast.core.types import Batch, LossReport, SegOutput


def test_total_adds_the_terms_in_float32():
    report = LossReport({"a": torch.tensor(1.0, dtype=torch.bfloat16), "b": torch.tensor(2.5)}, {})
    assert report.total.dtype == torch.float32
    assert report.total.item() == 3.5


def test_a_batch_moves_as_a_whole():
    ones = torch.ones(2, 3, 4, 5, dtype=torch.uint8)
    batch = Batch(
        image=ones,
        valid=torch.ones(2, 4, 5, dtype=torch.bool),
        index=torch.arange(2),
        ids=("a", "b"),
        geometry=torch.zeros(2, 2, 3),
        strong=(ones, ones),
        hidden_mask=ones[:, 0],
    )
    moved = batch.to("meta")
    assert moved.mask is None
    assert moved.ids == ("a", "b")
    tensors = [
        moved.image,
        moved.valid,
        moved.index,
        moved.geometry,
        *moved.strong,
        moved.hidden_mask,
    ]
    assert all(tensor.is_meta for tensor in tensors)
    assert batch.image.device.type == "cpu"


def test_rows_of_an_output_are_rows_of_all_its_parts():
    part = torch.arange(4.0, requires_grad=True).view(4, 1, 1, 1) * 1
    output = SegOutput(logits=part, features=part, stages=(part, part), auxiliary=(part,))
    rows = output.rows(1, 3)
    for found in (rows.logits, rows.features, *rows.stages, *rows.auxiliary):
        assert found.flatten().tolist() == [1, 2]
        assert found.requires_grad
    assert rows.embedding is None
    assert not any(p.requires_grad for p in (output.detach().logits, *output.detach().stages))
