"""Checks that every segmentor has to pass; subclass `ModelTester` and name the parts."""

import math

import torch

from pixelcontrast.models import (
    EmbeddingConfig,
    ModelConfig,
    Segmentor,
    build_segmentor,
    load_model,
    save_model,
    upsample_logits,
)

CLASSES = 5


def build(encoder, decoder, *, seed=0, embedding=None, classes=CLASSES, **options) -> Segmentor:
    torch.manual_seed(seed)
    config = ModelConfig(encoder=encoder, decoder=decoder, pretrained=False, **options)
    return build_segmentor(config, classes, embedding=embedding)


def images(batch, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, height, width), generator=generator, dtype=torch.uint8)


class ModelTester:
    """One combination of encoder and decoder."""

    encoder: str
    decoder: str
    output_stride: int | None = None
    strides: tuple[int, ...]
    """True strides of the stages."""
    logits_stride: int
    """Stride of the logits."""
    decoder_channels: int | None = None
    without_gradient: tuple[str, ...] = ()
    """Beginnings of parameters that a published form leaves without effect."""
    sizes = ((64, 64), (65, 65), (129, 129), (37, 90), (1, 1))

    @classmethod
    def make(cls, **options):
        return build(
            cls.encoder,
            cls.decoder,
            output_stride=cls.output_stride,
            decoder_channels=cls.decoder_channels,
            embedding=EmbeddingConfig(dim=16),
            auxiliary=True,
            **options,
        )

    def test_every_size_gives_stages_of_the_true_strides(self, shared):
        assert shared.encoder.strides == self.strides
        for height, width in self.sizes:
            with torch.no_grad():
                out = shared(images(1, height, width))
            for stage, channels, stride in zip(
                out.stages, shared.encoder.channels, self.strides, strict=True
            ):
                expected = (1, channels, math.ceil(height / stride), math.ceil(width / stride))
                assert tuple(stage.shape) == expected
            grid = math.ceil(height / self.logits_stride), math.ceil(width / self.logits_stride)
            assert tuple(out.logits.shape) == (1, CLASSES, *grid)
            assert tuple(out.features.shape) == (1, shared.decoder.channels, *grid)
            assert torch.isfinite(out.logits).all()

    def test_taps_have_the_stated_widths(self, shared):
        with torch.no_grad():
            decoded = shared.decoder(shared.encoder(shared.normalise(images(1, 65, 64))))
        widths = {name: tap.shape[1] for name, tap in decoded.taps.items()}
        assert widths == dict(shared.decoder.tap_channels)

    def test_gradient_reaches_every_parameter(self):
        model = self.make()
        with torch.no_grad():
            for parameter in model.parameters():
                if not parameter.any():  # timm zeroes the last norm of a residual branch
                    parameter.fill_(0.5)
        out = model(images(2, 65, 64), embed=True)
        # Random directions: the plain sum of a normalised map has no gradient.
        parts = (out.logits, out.embedding, *out.auxiliary)
        sum((part * torch.randn_like(part)).sum() for part in parts).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            idle = name.endswith("bias") or name.startswith(self.without_gradient)
            assert idle or parameter.grad.any(), name

    def test_idle_heads_get_zero_gradients(self):
        model = self.make().eval()
        out = model(images(1, 64, 64))
        zero = model.idle_heads(out)
        assert zero.item() == 0
        (out.logits.sum() + zero).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert not (name.startswith(("embedding", "auxiliary")) and parameter.grad.any())

    def test_heads_are_absent_at_inference(self, shared):
        called = []
        hooks = [
            head.register_forward_hook(lambda *_: called.append(1))
            for head in (shared.embedding_head, shared.auxiliary_head)
        ]
        with torch.no_grad():
            out = shared(images(1, 64, 64))
        for hook in hooks:
            hook.remove()
        assert not called
        assert out.embedding is None
        assert out.auxiliary == ()
        copied = shared.inference_copy()
        assert not any(n.startswith(("embedding", "auxiliary")) for n in copied.state_dict())
        assert shared.embedding_head is not None

    def test_deployed_module_gives_the_upsampled_logits(self, shared):
        image = images(2, 65, 90)
        with torch.no_grad():
            logits = shared.deploy()(image)
            expected = upsample_logits(shared(image).logits, (65, 90))
        torch.testing.assert_close(logits, expected)

    def test_model_file_round_trip(self, shared, tmp_path):
        image = images(1, 65, 64)
        save_model(shared, tmp_path / "model.safetensors", {"classes": ["road", "Straße"]})
        loaded, metadata = load_model(tmp_path / "model.safetensors")
        assert metadata["classes"] == ["road", "Straße"]
        assert not loaded.training
        with torch.no_grad():
            assert torch.equal(loaded(image).logits, shared(image).logits)

    def test_export_agrees(self, shared):
        image = images(1, 65, 97)
        module = shared.deploy()
        program = torch.export.export(module, (image,))
        with torch.no_grad():
            torch.testing.assert_close(program.module()(image), module(image))

    def test_bf16_autocast(self, shared):
        image = images(2, 64, 65)
        with torch.no_grad():
            plain = shared(image, embed=True)
            with torch.autocast("cpu", torch.bfloat16):
                out = shared(image, embed=True)
        assert out.embedding.dtype == torch.float32
        norms = out.embedding.norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))
        scale = plain.logits.std()
        assert (out.logits.float() - plain.logits).abs().mean() < 0.1 * scale

    def test_one_image_trains(self):
        model = self.make()
        out = model(images(1, 64, 64), embed=True)
        (out.logits.mean() + out.embedding[:, 0].mean()).backward()
        assert torch.isfinite(out.logits).all()

    def test_channels_last_changes_nothing(self, shared):
        image = images(2, 65, 64)
        last = shared.inference_copy().to(memory_format=torch.channels_last)
        with torch.no_grad():
            torch.testing.assert_close(
                last(image).logits, shared(image).logits, rtol=1e-4, atol=1e-4
            )
