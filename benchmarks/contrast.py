"""Time and memory of exact pixel contrast against the forms that store the similarity matrix.

    python benchmarks/contrast.py                      # everything, about an hour
    python benchmarks/contrast.py --only self skew     # some sections, merged into the file
    python benchmarks/contrast.py --quick --out x.json # seconds, to see that it works
    python benchmarks/contrast.py --device cuda        # device events, device memory
    python benchmarks/contrast.py --plot docs/images/contrast.svg

How: one thread; process CPU time, so that other jobs on the machine matter little; the methods
take turns in random order within a round; each is divided by the plain matrix products of the same
round; the median over rounds is reported. Memory is the growth of the peak resident set in a
fresh process, after a small warm-up and a reset of the peak counter.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from pixelcontrast.core.process_memory import peak_growth
from pixelcontrast.losses import pixel_info_nce

TAU = 0.07
HERE = Path(__file__).resolve()
MIB = 2**20
ROUNDS = ((1024, 25), (4096, 7), (16384, 5), (32768, 3), (10**9, 1))
"""Up to this many vectors, this many rounds."""
FITS = 13 * 2**30
"""Memory a full-matrix form may take here."""


# --- what is compared -----------------------------------------------------------------------------


def released(x, y, keys=None, ids=None):
    """The arithmetic of the released code of Wang et al.: exponentials of the whole matrix."""
    other, z = (x, y) if keys is None else (keys, ids)
    same = (y[:, None] == z).float()
    logits = x @ other.T / TAU
    logits = logits - logits.max(1, keepdim=True).values.detach()
    positive = same if keys is not None else same * (1 - torch.eye(len(x), device=x.device))
    power = torch.exp(logits)
    negative = (power * (1 - same)).sum(1, keepdim=True)
    log_share = logits - torch.log(power + negative)
    return -((positive * log_share).sum(1) / positive.sum(1)).mean()


def full_pico(x, y, keys=None, ids=None):
    """The same loss in its stable form, softplus over the whole matrix."""
    other, z = (x, y) if keys is None else (keys, ids)
    same = y[:, None] == z
    logits = x @ other.T / TAU
    others = logits.masked_fill(same, float("-inf")).logsumexp(1, keepdim=True)
    if keys is None:
        same = same & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    each = F.softplus(others - logits) * same
    return (each.sum(1) / same.sum(1)).mean()


def full_supcon(x, y):
    """The form with all keys in the denominator, over the whole matrix."""
    itself = torch.eye(len(x), dtype=torch.bool, device=x.device)
    positive = (y[:, None] == y) & ~itself
    logits = x @ x.T / TAU
    total = logits.masked_fill(itself, float("-inf")).logsumexp(1)
    return (total - (logits * positive).sum(1) / positive.sum(1)).mean()


def tiled_pico(x, y, keys=None, ids=None):
    return pixel_info_nce(x, y, keys, ids, temperature=TAU)


def tiled_supcon(x, y):
    return pixel_info_nce(x, y, temperature=TAU, denominator="all")


def metric_learning():
    """SupConLoss of pytorch-metric-learning, or None where it is not installed."""
    try:
        from pytorch_metric_learning.losses import SupConLoss
    except ImportError:
        return None
    return SupConLoss(temperature=TAU)


def products(x, keys=None, block=4096):
    """The plain matrix products of the problem: A B', S B and, among anchors, S' A."""
    other = x if keys is None else keys
    out = torch.zeros_like(x)
    for start in range(0, len(other), block):
        tile = x @ other[start : start + block].T
        out += tile @ other[start : start + block]
        if keys is None:
            tile.T @ x


def methods(names):
    """Functions of (x, y), compiled where the name says so."""
    table = {
        "released": released,
        "full_pico": full_pico,
        "full_supcon": full_supcon,
        "tiled_pico": tiled_pico,
        "tiled_supcon": tiled_supcon,
        "tiled_pico_bf16": tiled_pico,
        "metric_learning_supcon": metric_learning(),
    }
    torch._dynamo.reset()  # kernels for this shape alone
    for name in ("full_pico", "full_supcon"):
        table["compiled_" + name] = torch.compile(table[name], dynamic=False)
    return {name: table[name] for name in names if table[name] is not None}


def problem(count, dim, classes=16, skew=0.0, device="cpu", dtype=torch.float32):
    """Random unit vectors; class frequencies follow rank^-skew."""
    rng = torch.Generator().manual_seed(count + dim)
    x = F.normalize(torch.randn(count, dim, generator=rng), dim=1)
    weights = torch.arange(1, classes + 1, dtype=torch.float64) ** -skew
    y = torch.multinomial(weights, count, replacement=True, generator=rng)
    return x.to(device, dtype), y.to(device)


# --- measuring ------------------------------------------------------------------------------------


class Clock:
    """Seconds of process CPU time, or of the device."""

    def __init__(self, device):
        self.cuda = device == "cuda"

    def __call__(self, work):
        """Seconds of one call of `work`."""
        if not self.cuda:
            start = time.process_time()
            work()
            return time.process_time() - start
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        work()
        last.record()
        torch.cuda.synchronize()
        return first.elapsed_time(last) / 1000


def step(loss, x, *rest):
    """One forward and backward pass."""
    leaf = x.detach().requires_grad_()
    loss(leaf, *rest).backward()


def interleaved(jobs, rounds, clock, reference):
    """Median seconds, and median over rounds of the ratio to `reference`."""
    for name, work in jobs.items():
        if rounds > 3 or name.startswith("compiled"):
            work()  # few rounds are for large problems, which need no warm-up
    seconds = {name: [] for name in jobs}
    order = list(jobs)
    shuffler = random.Random(0)
    for _ in range(rounds):
        shuffler.shuffle(order)
        for name in order:
            seconds[name].append(clock(jobs[name]))
    base = seconds[reference]
    return {
        name: {
            "seconds": statistics.median(times),
            "ratio": statistics.median(t / b for t, b in zip(times, base, strict=True)),
            "low": min(t / b for t, b in zip(times, base, strict=True)),
            "high": max(t / b for t, b in zip(times, base, strict=True)),
        }
        for name, times in seconds.items()
    }


def self_jobs(names, count, dim, device, **shape):
    """Contrast of the vectors among each other, and the three matrix products."""
    x, y = problem(count, dim, device=device, **shape)
    half = x.bfloat16()
    jobs = {"products": lambda: products(x)}
    for name, loss in methods(names).items():
        rows = half if name.endswith("bf16") else x
        jobs[name] = lambda loss=loss, rows=rows: step(loss, rows, y)
    return jobs


def measure_self(args, clock):
    """Anchors among each other, for every size; full-matrix forms where they fit."""
    rows = []
    for count in args.sizes:
        for dim in args.dims:
            names = ["tiled_pico", "tiled_supcon", "tiled_pico_bf16"]
            if count <= 16384:
                names.append("released")
            if 4096 <= count <= 16384 and dim != 128:
                names += ["compiled_full_pico", "compiled_full_supcon"]
            if count <= 4096:
                names += ["full_pico", "full_supcon", "metric_learning_supcon"]
            rounds = args.rounds or next(r for n, r in ROUNDS if count <= n)
            jobs = self_jobs(names, count, dim, args.device)
            result = interleaved(jobs, rounds, clock, "products")
            rows.append({"count": count, "dim": dim, "rounds": rounds, "methods": result})
            print("self", count, dim, {k: round(v["ratio"], 3) for k, v in result.items()})
            yield rows


def measure_skew(args, clock):
    """The same size with few, many and unequal classes."""
    count, dim = args.skew
    shapes = {
        "16 equal": (16, 0.0),
        "2 equal": (2, 0.0),
        "19, frequency 1/rank": (19, 1.0),
        "150, frequency 1/rank": (150, 1.0),
        "1000 equal": (1000, 0.0),
    }
    jobs = {}
    for name, (classes, skew) in shapes.items():
        x, y = problem(count, dim, classes=classes, skew=skew, device=args.device)
        jobs[name] = lambda x=x, y=y: step(tiled_pico, x, y)
    result = interleaved(jobs, args.rounds or 5, clock, "16 equal")
    print("skew", {k: round(v["ratio"], 3) for k, v in result.items()})
    yield {"count": count, "dim": dim, "methods": result}


def measure_memory_bank(args, clock):
    """A few anchors against a large class-sorted memory without gradient."""
    rows = []
    anchors, slots = args.bank
    for dim in args.bank_dims:
        x, y = problem(anchors, dim, classes=19, device=args.device)
        keys, _ = problem(19 * slots, dim, device=args.device)
        ids = torch.arange(19, device=args.device).repeat_interleave(slots)
        jobs = {"products": lambda x=x, keys=keys: products(x, keys)}
        for name in ("tiled_pico", "released"):
            loss = methods([name])[name]
            jobs[name] = lambda loss=loss, x=x, y=y, k=keys, z=ids: step(loss, x, y, k, z)
        result = interleaved(jobs, args.rounds or 5, clock, "products")
        rows.append({"anchors": anchors, "keys": len(keys), "dim": dim, "methods": result})
        print("bank", anchors, len(keys), dim, {k: round(v["ratio"], 3) for k, v in result.items()})
        yield rows


def measure_peak(args, clock):
    """Extra peak memory of one forward and backward pass."""
    rows = []
    anchors, slots = args.bank
    wanted = [
        *(("tiled_pico", n, d, 0) for n in args.sizes for d in args.dims),
        *((m, n, d, 0) for m, n, d in args.peak_full),
        *((m, anchors, d, slots) for m in ("tiled_pico", "released") for d in args.bank_dims),
    ]
    if args.zhao:
        wanted.append(("tiled_supcon", args.zhao, 256, 0))
    for name, count, dim, bank in wanted:
        if name != "released" or 10 * 4 * count * (19 * bank or count) < FITS:
            extra = peak_of(name, count, dim, bank, args.device)
            rows.append({"method": name, "count": count, "dim": dim, "slots": bank, "mib": extra})
            print("peak", name, count, dim, bank, round(extra, 1))
            yield rows


def peak_of(name, count, dim, bank, device):
    """MiB, measured in a fresh process."""
    command = [sys.executable, str(HERE), "--child", name, str(count), str(dim), str(bank), device]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def child(name, count, dim, bank, device):
    """Print the extra peak memory of one step in MiB."""
    torch.set_num_threads(1)
    loss = methods([name])[name]
    x, y = problem(count, dim, classes=19 if bank else 16, device=device)
    rest = (y,)
    if bank:
        keys = problem(19 * bank, dim, device=device)[0]
        rest = (y, keys, torch.arange(19, device=device).repeat_interleave(bank))
    small = [t[:64] for t in (x, y)]
    for _ in range(2):
        step(loss, *small, *([small[0].detach(), small[1]] if bank else []))
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(loss, x, *rest)
        print((torch.cuda.max_memory_allocated() - before) / MIB)
        return
    print(peak_growth(lambda: step(loss, x, *rest)))


def matmul_rate(device, clock):
    """FLOP/s of one large product."""
    size = 8192 if device == "cuda" else 2048
    dtype = torch.float16 if device == "cuda" else torch.float32
    a = torch.randn(size, size, device=device, dtype=dtype)
    for _ in range(3):
        a @ a
    return 2 * size**3 / min(clock(lambda: a @ a) for _ in range(5))


def measure_gpu_goal(args, clock):
    """65,536 fp16 vectors among each other against 6 N^2 D FLOP at the machine's own rate."""
    rows = []
    rate = matmul_rate("cuda", clock)
    for dim in (64, 128, 256):
        x, y = problem(65536, dim, classes=19, device="cuda", dtype=torch.float16)
        for loss in (tiled_pico, tiled_supcon):
            for _ in range(3):
                step(loss, x, y)
            seconds = statistics.median(
                clock(lambda job=(loss, x, y): step(*job)) for _ in range(20)
            )
            ideal = 6 * 65536**2 * dim / rate
            row = {"method": loss.__name__, "dim": dim, "seconds": seconds, "ideal": ideal}
            rows.append(row | {"ratio": seconds / ideal, "rate": rate})
            print("gpu", rows[-1])
            yield rows


# --- report ---------------------------------------------------------------------------------------


def machine(device, clock):
    """What was measured on."""
    name = platform.processor() or platform.machine()
    if device == "cuda":
        name = torch.cuda.get_device_name()
    elif Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    return {
        "device": name,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "matmul_gflops": matmul_rate(device, clock) / 1e9,
        "temperature": TAU,
    }


def plot(results, path):
    """Time and extra memory against N, width 64."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "contrast"
    labels = {
        "released": "full matrix, released code",
        "compiled_full_pico": "full matrix, torch.compile",
        "tiled_pico": "this package",
        "products": "three plain matrix products",
    }
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name, label in labels.items():
        points = [
            (row["count"], row["methods"][name]["seconds"])
            for row in results["self"]
            if row["dim"] == 64 and name in row["methods"]
        ]
        left.plot(*zip(*points, strict=True), marker="o", label=label)
        sizes = [
            (row["count"], row["mib"])
            for row in results["peak"]
            if row["method"] == name and row["dim"] == 64 and not row["slots"]
        ]
        if sizes:
            right.plot(*zip(*sizes, strict=True), marker="o", label=label)
    left.set(title="forward and backward, one CPU thread", ylabel="seconds")
    right.set(title="extra peak memory", ylabel="MiB")
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xlabel="pixels contrasted with each other (width 64)")
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def tables(results):
    """The results as Markdown."""
    columns = (
        "tiled_pico",
        "tiled_supcon",
        "tiled_pico_bf16",
        "released",
        "full_pico",
        "full_supcon",
        "compiled_full_pico",
        "compiled_full_supcon",
        "metric_learning_supcon",
    )
    lines = ["| N | D | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for row in sorted(results["self"], key=lambda r: (r["count"], r["dim"])):
        found = row["methods"]
        cells = [f"{found[c]['ratio']:.2f}" if c in found else "" for c in columns]
        lines.append(f"| {row['count']:,} | {row['dim']} | " + " | ".join(cells) + " |")
    lines += ["", "| memory of | N | D | keys | extra MiB |", "|---|---|---|---|---|"]
    for row in sorted(results["peak"], key=lambda r: (r["slots"], r["count"], r["dim"])):
        keys = f"{19 * row['slots']:,}" if row["slots"] else "the anchors"
        lines.append(
            f"| {row['method']} | {row['count']:,} | {row['dim']} | {keys} | {row['mib']:,.0f} |"
        )
    lines += ["", "| anchors | keys | D | tiled_pico | released |", "|---|---|---|---|---|"]
    for row in results["bank"]:
        tiled, full = (row["methods"][m]["ratio"] for m in ("tiled_pico", "released"))
        sizes = f"{row['anchors']:,} | {row['keys']:,} | {row['dim']}"
        lines.append(f"| {sizes} | {tiled:.2f} | {full:.2f} |")
    skew = results["skew"]["methods"]
    lines += ["", "| " + " | ".join(skew) + " |", "|---" * len(skew) + "|"]
    lines.append("| " + " | ".join(f"{m['ratio']:.2f}" for m in skew.values()) + " |")
    return "\n".join(lines)


SECTIONS = {
    "self": measure_self,
    "skew": measure_skew,
    "bank": measure_memory_bank,
    "peak": measure_peak,
    "gpu": measure_gpu_goal,
}


def merged(old, new):
    """Rows measured now in place of those of the same problem, the other old rows kept."""
    if not isinstance(new, list):
        return new
    fields = ("method", "count", "dim", "slots")
    keys = [tuple(row.get(f) for f in fields) for row in new]
    kept = [row for row in old or [] if tuple(row.get(f) for f in fields) not in keys]
    return sorted([*kept, *new], key=lambda row: [str(row.get(f, "")).zfill(9) for f in fields])


def main():
    if sys.argv[1:2] == ["--child"]:
        name, count, dim, bank, device = sys.argv[2:7]
        child(name, int(count), int(dim), int(bank), device)
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), help="sections to measure")
    parser.add_argument("--sizes", type=int, nargs="+", help="numbers of vectors")
    parser.add_argument("--dims", type=int, nargs="+", help="widths of the vectors")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path, help="draw the stored results")
    parser.add_argument("--table", action="store_true", help="print the stored results")
    args = parser.parse_args()
    out = args.out or HERE.parent / "results" / f"contrast_{args.device}.json"
    results = json.loads(out.read_text()) if out.exists() else {}
    if args.plot:
        plot(results, args.plot)
    if args.table:
        print(tables(results))
    if args.plot or args.table:
        return
    args.sizes = args.sizes or [1024, 4096, 16384, 32768, 65536]
    args.dims = args.dims or (64, 128, 256)
    args.skew, args.bank, args.bank_dims = (16384, 256), (1024, 10000), (64, 256)
    args.peak_full, args.zhao = [], 129 * 129
    for name in ("released", "compiled_full_pico"):
        args.peak_full += [(name, n, 64) for n in (1024, 4096, 16384)]
    args.peak_full.append(("released", 16384, 256))
    if args.quick:
        args.sizes, args.dims, args.rounds = [256], (16,), 1
        args.skew, args.bank, args.bank_dims, args.zhao = (256, 16), (64, 20), (16,), 0
        args.peak_full = [("released", 256, 16)]
    if args.device == "cpu":
        torch.set_num_threads(1)
    clock = Clock(args.device)
    sections = args.only or [s for s in SECTIONS if s != "gpu" or args.device == "cuda"]
    for section in sections:
        for part in SECTIONS[section](args, clock):
            results[section] = merged(results.get(section), part)
            results["machine"] = machine(args.device, clock)
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
