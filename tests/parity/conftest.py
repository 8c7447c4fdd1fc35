"""Reference values of official code: every case in every file of one folder.

The folder is named by PIXELCONTRAST_REFERENCE. A test asks for its cases with
`@pytest.mark.reference("pico", kind="self")` and an argument `case`. A method adds its files by a
reader in READERS: a function from an opened archive to its cases, empty for another method's file.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("PIXELCONTRAST_REFERENCE", ROOT / "../shared/reference"))


@dataclass(frozen=True)
class Case:
    """Inputs and outputs of one run of official code."""

    name: str
    kind: str
    meta: dict
    arrays: dict

    def tensor(self, name, dtype=None):
        """A stored array."""
        found = torch.from_numpy(np.array(self.arrays[name]))
        return found if dtype is None else found.to(dtype)


def read_prefixed(archive):
    """Archives whose `meta` is a list of JSON objects with a `prefix` and a `kind`."""
    meta = np.atleast_1d(archive["meta"]) if "meta" in archive else []
    cases = []
    for text in meta:
        entry = json.loads(str(text))
        if not isinstance(entry, dict) or not {"prefix", "kind"} <= entry.keys():
            return []
        start = entry["prefix"]
        arrays = {key.removeprefix(start): archive[key] for key in archive if key.startswith(start)}
        cases.append(Case(start.rstrip("_./"), entry["kind"], entry, arrays))
    return cases


def read_cityscapes(archive):
    """Archives of label maps and the tables of the Cityscapes script, one prefix a case."""
    end = "_category_iiou"
    starts = [k.removesuffix(end) for k in archive if k.endswith(end) and "_mean_" not in k]
    if "eval_class_label_ids" not in archive:
        return []
    meta = {
        "names": archive["eval_class_names"].tolist(),
        "ids": archive["eval_class_label_ids"].tolist(),
        "categories": archive["eval_category_names"].tolist(),
        "sized": archive["instance_class_names"].tolist(),
        "sizes": archive["instance_class_avg_size"].tolist(),
    }
    cases = []
    for start in starts:
        arrays = {
            key.removeprefix(f"{start}_"): archive[key]
            for key in archive
            if key.startswith(f"{start}_")
        }
        cases.append(Case(start, "scores", meta, arrays))
    return cases


NAMED = {
    "unimatch": ("unimatch_v1", "unimatch_v2", "ohem"),
    "rankmatch": ("rank_", "prob2rank", "featmix"),
}
"""Kinds of cases in archives whose arrays are called case/array, by method: a case is of the kind
its name starts with. A kind may stand under one method alone."""


def read_named(method):
    """Archives whose arrays are called case/array, the cases of one method.

    Cases of no known kind belong to the method the file is called after, whose test of completeness
    then fails.
    """

    def read(archive):
        arrays = {}
        for key in archive:
            case, slash, name = key.partition("/")
            if slash:
                arrays.setdefault(case, {})[name] = archive[key]
        cases = []
        for case, found in arrays.items():
            owner, kind = next(
                ((m, k) for m, kinds in NAMED.items() for k in kinds if case.startswith(k)),
                (None, "unknown"),
            )
            if owner == method or (owner is None and archive_is_of(method, archive)):
                meta = json.loads(str(found.pop("meta", "{}")))
                cases.append(Case(case, kind, meta, found))
        return cases

    return read


def archive_is_of(method, archive):
    """Whether a file is called after a method."""
    return Path(archive.fid.name).name.startswith(method)


def read_picie(archive):
    """Arrays called caseN/part/array; every part is a case, with the settings of the whole."""
    cases = {}
    for key in archive:
        if re.fullmatch(r"case\d+/\w+/\w+", key):
            case, part, name = key.split("/")
            cases.setdefault((case, part), {})[name] = archive[key]
    if not any(part == "assign" for _, part in cases):
        return []
    metas = {case: json.loads(str(archive[f"{case}/meta"])) for case, _ in cases}
    return [
        Case(f"{case}-{part}", part, metas[case], arrays) for (case, part), arrays in cases.items()
    ]


def read_prcl(archive):
    """Arrays called case__group__array; consecutive steps of one group are one case."""
    cases = {}
    for key in archive:
        if not re.fullmatch(r"case\d+__[a-z]+(_[a-z0-9]+)*__\w+", key):
            continue
        case, group, name = key.split("__", 2)
        kind, step = re.fullmatch(r"(\w+?)(?:_(step\d+))?", group).groups()
        name = f"{step}__{name}" if step else name
        cases.setdefault((case, kind), {})[name] = archive[key]
    metas = {case: json.loads(str(archive[f"{case}__meta"])) for case, _ in cases}
    return [
        Case(f"{case}-{kind}", kind, metas[case], arrays)
        for (case, kind), arrays in cases.items()
        if metas[case]["method"] == "PRCL"
    ]


def read_u2pl(archive):
    """Arrays called caseK.group.name; every group of results is a case, with settings and inputs.

    Groups of inputs and of faults that must not be matched are no cases.
    """
    runs = {}
    for key in archive:
        run, _, name = key.partition(".")
        runs.setdefault(run, {})[name] = archive[key]
    return [
        Case(f"{run}-{group}", group, {}, arrays)
        for run, arrays in runs.items()
        if "cfg.delta_p" in arrays
        for group in sorted({name.partition(".")[0] for name in arrays})
        if group not in ("cfg", "in", "asrun")
    ]


READERS = {
    "cityscapes_iiou": read_cityscapes,
    "picie": read_picie,
    "pico": read_prefixed,
    "prcl": read_prcl,
    "rankmatch": read_named("rankmatch"),
    "u2pl": read_u2pl,
    "unimatch": read_named("unimatch"),
}


def discover(method):
    """Cases of a method, and what is wrong with its files."""
    cases, faults = [], []
    for path in sorted(FOLDER.glob("*.npz")):
        with np.load(path, allow_pickle=False) as archive:
            found = READERS[method](archive)
        if not found and path.name.startswith(method):
            faults.append(f"{path.name} holds no case of a known form")
        cases += [Case(f"{path.stem}-{c.name}", c.kind, c.meta, c.arrays) for c in found]
    return cases, faults


def pytest_configure(config):
    config.addinivalue_line("markers", "reference(method, kind): reference cases to check")


def pytest_generate_tests(metafunc):
    marker = metafunc.definition.get_closest_marker("reference")
    if marker is None or "case" not in metafunc.fixturenames:
        return
    method, kind = marker.args[0], marker.kwargs["kind"]
    cases, _ = discover(method)
    chosen = [pytest.param(case, id=case.name) for case in cases if case.kind == kind]
    if not chosen:
        reason = f"no reference values of {method} ({kind}) in {FOLDER}"
        chosen = [pytest.param(None, id="none", marks=pytest.mark.skip(reason=reason))]
    metafunc.parametrize("case", chosen)


@pytest.fixture(scope="session")
def reference_cases():
    """All cases of a method; skips without the folder, fails for a file without cases."""

    def find(method):
        if not FOLDER.is_dir():
            pytest.skip(f"no folder {FOLDER}; set PIXELCONTRAST_REFERENCE")
        cases, faults = discover(method)
        assert not faults, "; ".join(faults)
        if not cases:
            pytest.skip(f"no reference values of {method} in {FOLDER}")
        return cases

    return find
