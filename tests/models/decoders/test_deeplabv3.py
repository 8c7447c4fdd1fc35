import torch
from tests.models.tester import build, images
from torchvision.models.segmentation import deeplabv3_resnet50

PARTS = {
    "encoder.net.": "backbone.",
    "decoder.aspp.branches.": "classifier.0.convs.",
    "decoder.aspp.pooled.": "classifier.0.convs.4.",
    "decoder.aspp.project.": "classifier.0.project.",
    "decoder.smooth.0.": "classifier.1.",
    "decoder.smooth.1.": "classifier.2.",
    "classifier.1.": "classifier.4.",
    "auxiliary_head.0.": "aux_classifier.",
    "auxiliary_head.1.1.": "aux_classifier.4.",
}


def torchvision_name(key):
    ours, theirs = next((a, b) for a, b in PARTS.items() if key.startswith(a))
    name = theirs + key.removeprefix(ours)
    pooled = "classifier.0.convs.4."
    if name.startswith(pooled):  # torchvision's pooling layer sits in front of ours
        index, rest = name.removeprefix(pooled).split(".", 1)
        name = f"{pooled}{int(index) + 1}.{rest}"
    return name


def test_equals_torchvision_with_the_same_weights():
    torch.manual_seed(0)
    theirs = deeplabv3_resnet50(
        weights=None, weights_backbone=None, num_classes=5, aux_loss=True
    ).eval()
    ours = build("resnet50", "deeplabv3", output_stride=8, auxiliary=True).eval()
    state = theirs.state_dict()
    own = {k: v for k, v in ours.state_dict().items() if k not in ("mean", "std")}
    mapped = {key: state.pop(torchvision_name(key)) for key in own}
    assert not state
    assert ours.load_state_dict(mapped, strict=False).unexpected_keys == []
    image = images(1, 65, 90)
    ours.auxiliary_head.train(False)
    with torch.no_grad():
        expected = theirs(ours.normalise(image))
        stages = ours.encoder(ours.normalise(image))
        auxiliary = ours.auxiliary_head(stages[-2])
        torch.testing.assert_close(ours.deploy()(image), expected["out"], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            torch.nn.functional.interpolate(auxiliary, (65, 90), mode="bilinear"),
            expected["aux"],
            rtol=1e-4,
            atol=1e-4,
        )
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
