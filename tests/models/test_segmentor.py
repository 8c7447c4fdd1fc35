import pytest
import torch
from tests.models.tester import build, images

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.models import EmbeddingConfig, upsample_logits

SMALL = ("mobilenetv3_small_050", "deeplabv3plus")


def test_input_is_normalised_inside():
    model = build(*SMALL)
    image = images(2, 8, 9)
    mean = torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1)
    expected = (image / 255 - mean) / std
    torch.testing.assert_close(model.normalise(image), expected)
    torch.testing.assert_close(model.normalise(image.float()), expected)
    assert {"mean", "std"} <= model.state_dict().keys()


def test_low_precision_weights_take_integer_images():
    model = build(*SMALL).bfloat16().eval()
    assert model(images(1, 33, 40)).logits.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("decoder", "tap", "width"),
    [
        ("deeplabv3", None, 288),
        ("deeplabv3", "aspp", 256),
        ("deeplabv3plus", None, 256),
        ("deeplabv3plus", "fusion", 304),
        ("deeplabv3plus", "encoder", 288),
        ("hrnet", None, 8 + 16 + 24 + 288),
        ("hrnet", "features", 8 + 16 + 24 + 288),
        ("fpn", None, 256),
    ],
)
def test_embedding_reads_the_named_tap(decoder, tap, width):
    model = build(SMALL[0], decoder, embedding=EmbeddingConfig(dim=4, tap=tap))
    assert model.embedding_head.net[0].in_channels == width
    out = model.eval()(images(1, 33, 34), embed=True)
    assert out.embedding.shape[:2] == (1, 4)


def test_embedding_equals_head_on_tap():
    model = build(*SMALL, embedding=EmbeddingConfig(dim=4)).eval()
    out = model(images(1, 33, 34), embed=True)
    assert torch.equal(out.embedding, model.embedding_head(out.features))


def test_unknown_tap_is_named():
    with pytest.raises(ConfigError, match="unknown tap 'fuson'") as caught:
        build(*SMALL, embedding=EmbeddingConfig(tap="fuson"))
    assert "fusion" in caught.value.fix


def test_unknown_decoder_is_named():
    with pytest.raises(ConfigError, match="did you mean 'deeplabv3plus'"):
        build(SMALL[0], "deeplabv3pluss")


def test_embedding_without_a_head_is_refused():
    with pytest.raises(ConfigError, match="no embedding head"):
        build(*SMALL)(images(1, 32, 32), embed=True)


def test_frozen_encoder_does_not_change():
    model = build(*SMALL, freeze=True).train()
    before = {k: v.clone() for k, v in model.encoder.state_dict().items()}
    optimiser = torch.optim.SGD(
        [p for g in model.parameter_groups(1.0, 0.1) for p in g["params"]], 1.0
    )
    model(images(2, 64, 64)).logits.square().sum().backward()
    optimiser.step()
    assert all(torch.equal(v, before[k]) for k, v in model.encoder.state_dict().items())
    assert model.decoder.training
    assert not any(m.training for m in model.encoder.modules())
    assert [g["name"] for g in model.parameter_groups(1.0, 0.1)] == ["head"]


def test_parameter_groups_cover_everything_once():
    model = build(*SMALL, auxiliary=True, embedding=EmbeddingConfig())
    groups = model.parameter_groups(0.1, 1e-4, head_factor=10.0, decay_norm_and_bias=False)
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())
    by_name = {group["name"]: group for group in groups}
    assert by_name["encoder"]["lr"] == by_name["encoder_no_decay"]["lr"] == 0.1
    assert by_name["head"]["lr"] == by_name["head_no_decay"]["lr"] == 1.0
    assert by_name["head"]["weight_decay"] == 1e-4
    assert by_name["head_no_decay"]["weight_decay"] == 0
    assert all(p.ndim > 1 for p in by_name["encoder"]["params"])
    assert all(p.ndim <= 1 for p in by_name["encoder_no_decay"]["params"])
    assert len(model.parameter_groups(0.1, 1e-4)) == 2
    encoder = {id(p) for p in model.encoder.parameters()}
    assert {id(p) for p in model.parameter_groups(0.1, 1e-4)[0]["params"]} == encoder


def test_variance_head_reads_the_tap_of_the_embedding():
    config = EmbeddingConfig(dim=4, tap="fusion", normalise=False, kernel=3, variance=True)
    model = build(*SMALL, embedding=config).eval()
    out = model(images(1, 33, 34), embed=True)
    assert out.variance.shape == out.embedding.shape
    assert model.variance_head.first.shape == (304, 304)
    assert model(images(1, 33, 34)).variance is None
    assert model.inference_copy().variance_head is None


def test_variance_head_learns_at_its_own_rate():
    config = EmbeddingConfig(dim=4, variance=True, variance_lr=1 / 64)
    model = build(*SMALL, embedding=config)
    groups = model.parameter_groups(3.2e-3, 5e-4, head_factor=2.0)
    by_name = {group["name"]: group for group in groups}
    assert by_name["variance_head"]["lr"] == pytest.approx(1e-4)
    expected = {id(p) for p in model.variance_head.parameters()}
    assert {id(p) for p in by_name["variance_head"]["params"]} == expected
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_idle_variance_head_gets_a_zero_gradient():
    model = build(*SMALL, embedding=EmbeddingConfig(dim=4, variance=True))
    model.idle_heads(model(images(2, 33, 34))).backward()
    assert all(not p.grad.any() for p in model.variance_head.parameters())


def test_inference_copy_is_independent():
    model = build(*SMALL, embedding=EmbeddingConfig())
    copied = model.inference_copy()
    with torch.no_grad():
        model.classifier[1].weight.zero_()
    assert copied.classifier[1].weight.any()
    assert not copied.training
    assert model.training


@pytest.mark.parametrize("align", [False, True])
def test_upsampling_convention(align):
    logits = torch.tensor([[[[0.0, 3.0]]]], dtype=torch.float16)
    expected = [0.0, 1.0, 2.0, 3.0] if align else [0.0, 0.75, 2.25, 3.0]
    out = upsample_logits(logits, (1, 4), align_corners=align)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out[0, 0, 0], torch.tensor(expected))


def test_align_corners_reaches_every_resize(monkeypatch):
    seen = []
    original = torch.nn.functional.interpolate

    def spy(*args, **kwargs):
        seen.append(kwargs["align_corners"])
        return original(*args, **kwargs)

    decoders = ("deeplabv3plus", "fpn", "hrnet")
    deployed = [build(SMALL[0], decoder, align_corners=True).deploy() for decoder in decoders]
    monkeypatch.setattr(torch.nn.functional, "interpolate", spy)
    for network in deployed:
        network(images(1, 33, 34))
    assert len(seen) == 2 + 4 + 4
    assert all(seen)


def test_compiles_without_graph_breaks():
    model = build("resnet10t", "hrnet", embedding=EmbeddingConfig(dim=8), auxiliary=True)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    out = compiled(images(2, 64, 64), embed=True)
    assert out.embedding is not None
    assert len(out.auxiliary) == 1


@pytest.mark.skipif(
    torch.__version__ < "2.15", reason="older torch.export ties itself to the parity of the size"
)
def test_exports_for_every_batch_and_size():
    module = build("resnet10t", "deeplabv3plus", decoder_channels=16).deploy()
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        module, (images(2, 64, 96),), dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},)
    )
    image = images(3, 65, 130)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(image), module(image))


def test_perturbed_stages_are_decoded_and_nothing_else_changes():
    model = build(*SMALL).eval()
    image = images(2, 33, 40)
    plain = model(image)
    same = model(image, perturb=lambda stages: stages)
    torch.testing.assert_close(same.logits, plain.logits)
    doubled = model(image, perturb=lambda stages: tuple(torch.cat([s, 0 * s[1:]]) for s in stages))
    assert len(doubled.logits) == len(doubled.features) == 3
    torch.testing.assert_close(doubled.logits[:2], plain.logits)
    assert not torch.allclose(doubled.logits[2], plain.logits[1])
    for mine, theirs in zip(doubled.stages, plain.stages, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_map_asked_for_by_name_is_handed_out():
    model = build(*SMALL).eval()
    image = images(2, 33, 40)
    found = []
    model.decoder.aspp.register_forward_hook(lambda m, args, output: found.append(output))
    assert model(image).tapped is None
    output = model(image, tap=model.find_tap("aspp")[0])
    assert output.tapped is found[1]
    assert torch.equal(output.rows(1, 2).tapped, found[1][1:])
    assert model(image, tap="encoder").tapped.shape == output.stages[-1].shape


def test_layer_decay_lowers_the_rate_from_block_to_block():
    model = build("vit_tiny_patch16_224", "fpn", decoder_channels=8)
    groups = model.parameter_groups(0.1, 1e-4, head_factor=2.0, layer_decay=0.9)
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    vit = model.encoder.net.model
    assert rate[id(vit.blocks[11].mlp.fc2.weight)] == pytest.approx(0.09)
    assert rate[id(vit.blocks[0].mlp.fc2.weight)] == pytest.approx(0.1 * 0.9**12)
    assert rate[id(vit.pos_embed)] == pytest.approx(0.1 * 0.9**13)
    assert rate[id(model.classifier[1].weight)] == 0.2


def test_checkpointing_changes_neither_loss_nor_file(tmp_path):
    image = images(2, 64, 64)
    plain = build("test_resnet", "deeplabv3plus", decoder_channels=8, dropout=0.0)
    again = build(
        "test_resnet", "deeplabv3plus", decoder_channels=8, dropout=0.0, checkpointing=True
    )
    assert torch.equal(plain(image).logits, again(image).logits)
    plain(image).logits.square().mean().backward()
    again(image).logits.square().mean().backward()
    for left, right in zip(plain.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad)
    assert plain.state_dict().keys() == again.state_dict().keys()
    deployed = again.deploy()
    torch.export.export(deployed, (image,))
