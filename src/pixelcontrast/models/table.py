"""What can be named in `model.decoder`, in words; imports nothing."""

DECODER_SUMMARIES = {
    "deeplabv3": "atrous spatial pyramid pooling on the deepest stage (1706.05587)",
    "deeplabv3plus": "the same, sharpened by a stage of stride 4 (1802.02611)",
    "deeplabv3plus_separable": "deeplabv3plus with separable convolutions, faster (1802.02611)",
    "dpt": "pyramid of a plain vision transformer's blocks, as in UniMatch V2 (2103.13413)",
    "fcn": "one 3x3 convolution on the deepest, dilated stage (1411.4038)",
    "fpn": "top-down sum of all stages; also for transformers (1612.03144)",
    "picie_fpn": "top-down sum alone, for clustering (2103.17070)",
    "hrnet": "all stages side by side at the finest resolution (1904.04514)",
    "linear": "a plain vision transformer's normalised patches (2105.05633, DINOv2's probe)",
    "maskformer": "a hundred masks with a class each, matched to the labels (2107.06278)",
    "ocrnet": "pixels described by the object they belong to; supervised regions (1909.11065)",
    "segformer": "linear maps of all stages, fused by another one (2105.15203)",
    "segmenter": "class tokens compared with a plain vision transformer's patches (2105.05633)",
    "upernet": "pyramid pooling and a feature pyramid, 512 channels (1807.10221)",
}
