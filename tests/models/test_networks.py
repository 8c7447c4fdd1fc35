from tests.models.tester import ModelTester

SMALL = ((65, 65), (37, 90), (1, 1))


class TestResNetDeepLabV3Plus(ModelTester):
    encoder = "resnet18"
    decoder = "deeplabv3plus"
    strides = (4, 8, 16, 16)
    logits_stride = 4
    sizes = (*ModelTester.sizes, (321, 321))


class TestResNetDeepLabV3(ModelTester):
    encoder = "resnet18"
    decoder = "deeplabv3"
    output_stride = 8
    strides = (4, 8, 8, 8)
    logits_stride = 8


class TestMobileNetDeepLabV3Plus(ModelTester):
    encoder = "mobilenetv3_small_100"
    decoder = "deeplabv3plus"
    strides = (4, 8, 16, 16)
    logits_stride = 4


class TestHRNet(ModelTester):
    encoder = "hrnet_w18_small"
    decoder = "hrnet"
    strides = (4, 8, 16, 32)
    logits_stride = 4


class TestViTFPN(ModelTester):
    encoder = "vit_tiny_patch16_224"
    decoder = "fpn"
    strides = (16, 16, 16, 16)
    logits_stride = 16


class TestViTDPT(ModelTester):
    encoder = "vit_tiny_patch16_224"
    decoder = "dpt"
    strides = (16, 16, 16, 16)
    logits_stride = 2
    sizes = ((64, 64), (16, 16), (48, 96))


class TestConvNeXtFPN(ModelTester):
    encoder = "convnext_atto"
    decoder = "fpn"
    strides = (4, 8, 16, 32)
    logits_stride = 4


class TestMobileNetFCN(ModelTester):
    encoder = "mobilenetv3_small_050"
    decoder = "fcn"
    strides = (4, 8, 8, 8)
    logits_stride = 8
    sizes = SMALL


class TestMobileNetOCRNet(ModelTester):
    encoder = "mobilenetv3_small_050"
    decoder = "ocrnet"
    decoder_channels = 32
    strides = (4, 8, 16, 32)
    logits_stride = 4
    sizes = SMALL


class TestMobileNetUPerNet(ModelTester):
    encoder = "mobilenetv3_small_050"
    decoder = "upernet"
    decoder_channels = 32
    strides = (4, 8, 16, 32)
    logits_stride = 4
    sizes = SMALL


class TestMobileNetSegFormer(ModelTester):
    encoder = "mobilenetv3_small_050"
    decoder = "segformer"
    decoder_channels = 32
    strides = (4, 8, 16, 32)
    logits_stride = 4
    sizes = SMALL


class TestMiTSegFormer(ModelTester):
    encoder = "mit_b0"
    decoder = "segformer"
    decoder_channels = 32
    strides = (4, 8, 16, 32)
    logits_stride = 4
    sizes = (*SMALL, (129, 129), (321, 321))


class TestViTLinear(ModelTester):
    encoder = "vit_tiny_patch16_224"
    decoder = "linear"
    strides = (16, 16, 16, 16)
    logits_stride = 16
    sizes = SMALL


class TestViTSegmenter(ModelTester):
    encoder = "vit_tiny_patch16_224"
    decoder = "segmenter"
    strides = (16, 16, 16, 16)
    logits_stride = 16
    sizes = SMALL


class TestMobileNetMaskFormer(ModelTester):
    encoder = "mobilenetv3_small_050"
    decoder = "maskformer"
    decoder_channels = 64
    strides = (4, 8, 16, 32)
    logits_stride = 4
    sizes = SMALL
    # The queries begin as zeros (DETR), so the first of them have nothing to tell each other.
    without_gradient = (
        "classifier.layers.0.among.query",
        "classifier.layers.0.among.key",
        "classifier.layers.0.among.value",
    )
