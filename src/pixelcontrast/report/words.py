"""A run's settings as sentences."""

from __future__ import annotations

from typing import Any

from pixelcontrast.report.run import Run, mapping, number
from pixelcontrast.report.text import (
    MISSING,
    TIMES,
    duration,
    figure,
    joined,
    percent,
    quantity,
)

_METHODS = {
    "supervised": (
        "Supervised",
        "The network learns from labelled pixels alone, by cross-entropy: the baseline.",
    ),
    "pico": (
        "PiCo",
        "Beside cross-entropy, pixel embeddings of one class are pulled together and those of "
        "different classes pushed apart, across all images of a batch.",
    ),
    "fixmatch": (
        "FixMatch",
        "Beside cross-entropy on the labelled images, pixels of the others learn, in a strongly "
        "distorted view, the class the network is sure of in a plain one.",
    ),
    "mean_teacher": (
        "Mean teacher",
        "Beside cross-entropy on the labelled images, the network follows the class probabilities "
        "of its own average over time, on mixed images.",
    ),
    "unimatch": (
        "UniMatch V1",
        "Beside cross-entropy on the labelled images, two strongly distorted views and a view with "
        "half of its features removed learn the classes the network is sure of in a plain view.",
    ),
    "unimatch_v2": (
        "UniMatch V2",
        "Beside cross-entropy on the labelled images, two strongly distorted views, each without "
        "the features the other keeps, learn the classes a teacher averaged over time is sure of.",
    ),
    "rankmatch": (
        "RankMatch",
        "UniMatch V1, and every pixel of a distorted view has to put the most similar of a few "
        "landmarks of the image in the same order as in the plain view.",
    ),
    "prcl": (
        "PRCL",
        "Beside cross-entropy on the labelled images, mixed and distorted views learn the labels "
        "of a teacher averaged over time, and pixels of all images, each a Gaussian that says how "
        "sure it is, are drawn to their class and pushed away from the others.",
    ),
    "u2pl": (
        "U2PL",
        "Beside cross-entropy, images without masks are labelled by a teacher averaged over time. "
        "Its sure pixels are learnt; its unsure ones still tell what they are not and repel the "
        "embeddings of those classes.",
    ),
    "contextrast": (
        "Contextrast",
        "Beside cross-entropy, the pixels of every encoder level are drawn to an anchor of their "
        "class and pushed away from those of classes they are mistaken for, most of all at the "
        "edges of errors.",
    ),
    "picie": (
        "PiCIE",
        "Without any label: in every epoch the pixels of all images are clustered by their "
        "features in two views that differ in colour and place, and the network learns to give a "
        "pixel the clusters of both views in either of them.",
    ),
    "mdc": (
        "Modified DeepCluster",
        "Without any label: in every epoch the pixels of all images are clustered by their "
        "features, and a new classifier and the network learn the clusters. The baseline of PiCIE.",
    ),
    "label_pretrain": (
        "Label-contrastive pretraining",
        "Before any classifier exists, pixels of one class are drawn together and those of other "
        "classes pushed apart, between an image and colour-distorted copies; then the whole "
        "network is fine-tuned with cross-entropy.",
    ),
}
_DECODERS = {
    "deeplabv3": "DeepLabV3",
    "deeplabv3plus": "DeepLabV3+",
    "dpt": "DPT",
    "fpn": "FPN",
    "hrnet": "HRNet head",
    "picie_fpn": "FPN of PiCIE",
}


NETWORKS = {
    "miou": "trained weights",
    "miou_ema": "averaged weights",
    "miou_teacher": "teacher",
}
"""What the networks of a method are called, by the name of their score in the log."""


_WITHOUT_MASKS = ("picie", "mdc")
"""Methods that learn from images alone, whatever masks there are."""

_TERMS = {
    "mask_class": "classes of the masks",
    "mask_focal": "masks, pixel by pixel",
    "mask_dice": "masks, by their overlap",
}
"""Loss terms whose names in the log do not tell what they are."""


def term_title(term: str) -> str:
    """What a loss term measures, in words where it has some."""
    return f"{_TERMS[term]} ({term})" if term in _TERMS else term


def method_title(method: str) -> str:
    """The method's name as its paper writes it."""
    return _METHODS[method][0] if method in _METHODS else method


def run_title(run: Run) -> str:
    """The method's name and, where one was added, that of its contrast term."""
    title, term = method_title(run.method), run.get("method.contrast.name")
    return f"{title} with {method_title(str(term))} contrast" if term else title


def headline_sentence(run: Run) -> str:
    """What was trained on what, in one or two sentences."""
    data = run.data_name or "unknown data"
    network = _network_name(run)
    counts = _split_counts(run)
    way = "cross-entropy alone" if run.method == "supervised" else run_title(run)
    sentence = f"{network[0].upper()}{network[1:]} trained on {data} with {way}."
    labelled = counts.get("labeled", counts.get("train"))
    if run.method in _WITHOUT_MASKS:
        images = (labelled or 0) + counts.get("unlabeled", 0)
        sentence += f" It learnt from {images:,} images and from no mask."
    elif labelled is not None:
        sentence += f" {labelled:,} training images have labels"
        sentence += f", {counts['unlabeled']:,} have none." if counts.get("unlabeled") else "."
    return sentence


def settings(run: Run) -> list[tuple[str, str]]:
    """Headings and sentences about the run, in reading order; only what is known is said."""
    parts = [
        ("Method", _method(run)),
        ("Stages", _stages(run)),
        ("Network", _network(run)),
        ("Data", _data(run)),
        ("Views", _views(run)),
        ("Optimisation", _optimisation(run)),
        ("Evaluation", _evaluation(run)),
        ("Networks", _networks(run)),
        ("Machine", _machine(run)),
    ]
    return [(heading, sentence) for heading, sentence in parts if sentence]


def method_options(run: Run) -> list[tuple[str, str]]:
    """The method's own options as dotted names and values."""
    return _flat(mapping(run.get("method")), "", skip=("name",))


def hardware_name(run: Run) -> str:
    """The processor that did the work."""
    hardware = mapping(run.record.get("hardware"))
    if hardware.get("gpu") and run.record.get("device") != "cpu":
        count = number(hardware.get("gpus")) or 1
        return f"{count:.0f} {TIMES} {hardware['gpu']}" if count > 1 else str(hardware["gpu"])
    name = str(hardware.get("cpu") or "CPU") if hardware else "unknown machine"
    cores = number(hardware.get("cores"))
    return f"{name}, {cores:.0f} cores" if cores else name


def _method(run: Run) -> str:
    title, idea = _METHODS.get(run.method, (run.method, ""))
    term = run.get("method.contrast.name")
    if term:
        name = method_title(str(term))
        idea += f" Added to it is the contrast of {name}, over labelled and pseudo-labelled pixels."
    return f"{title}. {idea}".strip()


def _stages(run: Run) -> str:
    parts = []
    for name, stage in mapping(run.get("stages")).items():
        changes = mapping(stage)
        method = mapping(changes.get("method")).get("name") or run.get("method.name")
        steps = mapping(changes.get("train")).get("steps") or run.get("train.steps")
        words = [method_title(str(method)).lower()]
        if number(steps) is not None:
            words.append(f"{steps:,} steps")
        if changes.get("pseudo_labels"):
            words.append("with pseudo-labels of the network before")
        parts.append(f"{name} ({', '.join(words)})")
    return ", then ".join(parts) + "." if parts else ""


def _network_name(run: Run) -> str:
    encoder = run.get("model.encoder") or mapping(run.record.get("model")).get("encoder")
    decoder = run.get("model.decoder") or mapping(run.record.get("model")).get("decoder")
    if not encoder and not decoder:
        return "a network"
    shown = _DECODERS.get(str(decoder), str(decoder)) if decoder else "a network"
    return f"{shown} ({encoder})" if encoder else shown


def _network(run: Run) -> str:
    model = mapping(run.record.get("model"))
    if not run.get("model") and not model:
        return ""
    text = _network_name(run)
    total, kept = number(model.get("parameters")), number(model.get("parameters_inference"))
    if total is not None:
        text += f", {quantity(total)} parameters"
        if kept is not None and kept < total:
            text += f" ({quantity(kept)} of them kept after training)"
    if run.get("model.weights_file"):
        start = "encoder weights read from a file"
    elif run.get("model.pretrained") is True:
        start = "encoder pretrained"
    elif run.get("model.pretrained") is False:
        start = "trained from random weights"
    else:
        start = ""
    return f"{text}; {start}." if start else f"{text}."


def _split_counts(run: Run) -> dict[str, int]:
    splits = mapping(run.dataset.get("splits"))
    found = {name: mapping(split).get("count") for name, split in splits.items()}
    return {str(name): count for name, count in found.items() if isinstance(count, int)}


def _data(run: Run) -> str:
    if not run.dataset:
        return ""
    sentences = [f"{run.data_name or 'Unnamed data set'}: {len(run.classes)} classes"]
    words = {"labeled": "labelled", "unlabeled": "unlabelled", "val": "validation"}
    counts = [f"{count:,} {words.get(n, n)}" for n, count in _split_counts(run).items() if count]
    if counts:
        sentences[0] += f", {joined(counts)} images"
    labelled = run.get("data.labeled")
    if isinstance(labelled, str):
        sentences.append(f"The labelled images are the split “{labelled}”")
    elif labelled is not None:
        seed = run.get("data.labeled_seed")
        drawn = f" (choice drawn with seed {seed})" if seed is not None else ""
        sentences.append(f"Labels were limited to {labelled}{drawn}")
    return ". ".join(sentences) + "."


def _views(run: Run) -> str:
    crop, scale = run.get("view.crop"), run.get("view.scale")
    parts = []
    if _is_pair(crop):
        parts.append(f"random crops of {crop[0]} {TIMES} {crop[1]} pixels")
    if _is_pair(scale):
        parts.append(f"zoomed by {scale[0]:g} to {scale[1]:g}")
    if run.get("view.flip"):
        parts.append("mirrored at random")
    if run.get("view.colour"):
        parts.append("colours changed at random")
    text = ", ".join(parts)
    return text[:1].upper() + text[1:] + "." if text else ""


def _optimisation(run: Run) -> str:
    name, rate = run.get("optim.name"), number(run.get("optim.lr"))
    parts = []
    if name:
        text = {"sgd": "SGD", "adamw": "AdamW"}.get(str(name), str(name))
        if rate is not None:
            text += f" at learning rate {figure(rate)}"
            factor = number(run.get("optim.head_factor"))
            if factor is not None and factor != 1:
                text += f" ({factor:g} {TIMES} for decoder and heads)"
        if run.get("optim.schedule"):
            text += f", {run.get('optim.schedule')} schedule"
        decay = number(run.get("optim.weight_decay"))
        if decay:
            text += f", weight decay {figure(decay)}"
        parts.append(text)
    steps, batch = number(run.get("train.steps")), number(run.get("train.batch"))
    if steps is not None and batch is not None:
        text = f"{steps:,.0f} steps of {batch:.0f} images"
        accumulate = number(run.get("train.accumulate")) or 1
        if accumulate > 1:
            text += f", gradients summed over {accumulate:.0f} batches"
        parts.append(text)
    precision = run.record.get("precision") or run.get("train.precision")
    if precision:
        types = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
        parts.append(f"{types.get(str(precision), str(precision))} arithmetic")
    ema = number(run.get("train.ema"))
    teacher = number(run.get("method.teacher.decay"))
    if teacher is not None:
        parts.append(f"teacher of averaged weights (decay {teacher:g})")
    elif ema is not None:
        parts.append(f"averaged weights (decay {ema:g}) scored beside the trained ones")
    return "; ".join(parts) + "." if parts else ""


def _evaluation(run: Run) -> str:
    if run.result is None:
        return ""
    protocol = run.result.protocol
    way = "whole images"
    if protocol.get("mode") == "slide":
        crop: Any = protocol.get("crop")
        size = f" of {crop[0]} {TIMES} {crop[1]} pixels" if _is_pair(crop) else ""
        way = f"sliding windows{size}"
    listed = protocol.get("scales")
    scales = [number(scale) for scale in listed] if isinstance(listed, list | tuple) else []
    if scales and scales != [1.0]:
        way += ", at scales " + joined(
            [MISSING if scale is None else f"{scale:g}" for scale in scales]
        )
    if protocol.get("flip"):
        way += ", plain and mirrored"
    count = len(run.result.images)
    images = f" of {count:,} images" if count else ""
    text = f"Split “{run.result.split}”{images}: {way}, pixels of all images counted together."
    step = number(run.result.step if run.result.step is not None else run.best.get("step"))
    if step is not None:
        which = {
            "student": "the trained weights",
            "ema": "the averaged weights",
            "teacher": "the teacher's weights",
        }
        network = which.get(str(run.best.get("which")), "the network")
        text += f" Scored are {network} of step {step:,.0f}, the best of the validations."
    return text


def _networks(run: Run) -> str:
    """The best validation of each network, where a method has several."""
    best = []
    for key, name in NETWORKS.items():
        found = [value for line in run.val if (value := number(line.get(key))) is not None]
        if found:
            best.append(f"{name} {percent(max(found))} %")
    if len(best) < 2:
        return ""
    return f"Best validation mean IoU: {joined(best)}. The better one is kept and scored."


def _machine(run: Run) -> str:
    if not run.record.get("hardware"):
        return ""
    seconds = number(run.record.get("seconds"))
    took = f"; training took {duration(seconds)}" if seconds is not None else ""
    return f"{hardware_name(run)}{took}."


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(number(part) is not None for part in value)
    )


def _flat(values: Any, prefix: str, skip: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    found = []
    for key, value in mapping(values).items():
        if key in skip:
            continue
        if mapping(value):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", MISSING if value is None else str(value)))
    return found
