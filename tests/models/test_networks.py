from tests.models.tester import ModelTester


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
