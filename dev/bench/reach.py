#!/usr/bin/env python3
"""Which models train on which card, in full and by adapters (--finetune), by plan: the fastest placement that fits,
with its bytes on device and host, and the predicted speed beside the best that is published for that card.

    dev/bench/reach.py [--finetune] [--out FOLDER] [--only WORD] [--no-runs | --again | --record]
    or: make bench BENCH=reach

Every row tries --recompute=auto with places of the state (--offload) and micro-batches, and takes the fastest whose
planned bytes fit the card less a gibibyte for the driver and a desktop. Then the row's placement is also run, two
steps at 1/32 of the width and two layers, on as many ranks, with $TRAIN_GPT and, where it is built, with its kernels on
the executor ($TRAIN_GPT_CUDA_ON_CPU, or build/release/train_gpt_cuda_on_cpu): the bytes that were planned must be those
that were allocated, and of the arena and of host memory those that were used at most. --again plans nothing: it runs
what is in the results folder; --record writes there, too, how that went.

Speeds are predictions: nothing here has run on such a card. Exits with 1 if a row does not fit, is slower than its
peer, or if a small run's bytes differ. Standard library only."""

import datetime
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile

root = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(root / "scripts"))
import common  # noqa: E402  (from scripts/)

GIB = 1 << 30
RESERVE = GIB
TOTAL_TOKENS = {"full": 524288, "adapters": 65536}
LEVELS = "auto"  # No slower than any level in the same memory, as the tests of the search have it.
OFFLOADS = [
    "none",
    "moments",
    "moments,masters",
    "moments,masters,boundaries",
    "moments,masters,gradients",
    "moments,masters,gradients,boundaries",
    "moments,masters,gradients,parameters",
    "all",
]
OFFLOADS_OF_ADAPTERS = ["none", "boundaries", "parameters", "parameters,boundaries"]
# Full training by how its state is kept, adapters by how the base is.
STATES = {
    "fp32": [],
    "small": ["--moments=8bit", "--masters=none", "--gradients=bf16"],
    "lora": ["--lora=16"],
    "nf4": ["--lora=16", "--base-format=nf4"],
    "nf4-double": ["--lora=16", "--base-format=nf4-double"],
}
# Layers, channels, heads, key/value heads, MLP, vocabulary.
SHAPES = {
    "llama2-7b": (32, 4096, 32, 32, 11008, 32000),
    "llama3-8b": (32, 4096, 32, 8, 14336, 128256),
    "14B": (48, 5120, 40, 8, 13824, 152064),
    "32B": (64, 5120, 40, 8, 27648, 152064),
    "llama3-70b": (80, 8192, 64, 8, 28672, 128256),
}
# Model, profile, GiB of a card, cards, published tokens/s on that card, by whom.
ROWS = [
    ("llama2-7b", "rtx5060ti-16gb", 16, 1, 890, "LLMQ, 7B"),
    ("llama3-8b", "rtx3060", 12, 1, None, "none found"),
    ("llama3-8b", "rtx5060ti-16gb", 16, 1, 890, "LLMQ, 7B"),
    ("14B", "rtx4090", 24, 1, 1350, "LLMQ, 14B, bf16"),
    ("32B", "l40s", 48, 1, None, "none found"),
    ("llama3-70b", "h100", 80, 4, None, "none found"),
]
# The same for adapters of rank 16 on every matrix, and the base's format. Published sizes are least GB of a card.
ROWS_OF_ADAPTERS = [
    ("llama3-8b", "rtx4090", 24, 1, 3080, "torchtune, LoRA", "lora"),
    ("llama3-8b", "rtx5060ti-16gb", 16, 1, None, "Unsloth: 22 GB", "lora"),
    ("llama3-8b", "rtx4060", 8, 1, None, "Unsloth: 22 GB", "lora"),
    ("llama3-8b", "rtx4090", 24, 1, 2410, "torchtune, QLoRA", "nf4"),
    ("llama3-8b", "rtx4060", 6, 1, None, "Unsloth: 6 GB", "nf4-double"),
    ("14B", "rtx5060ti-16gb", 16, 1, None, "Unsloth: 8.5 GB", "nf4-double"),
    ("llama3-70b", "l40s", 48, 1, None, "Unsloth: 41 GB", "nf4-double"),
    ("llama3-70b", "h100", 80, 4, None, "Unsloth: 164 GB", "lora"),
]


def model_options(name):
    layers, channels, heads, kv_heads, ffn, vocabulary = SHAPES[name]
    if name.startswith("llama"):
        return [f"--model={name}"]
    return ["--model=llama3-8b", f"--layers={layers}", f"--channels={channels}", f"--heads={heads}",
            f"--kv-heads={kv_heads}", f"--ffn-size={ffn}", f"--vocab-size={vocabulary}"]


def small_options(name, cards):
    """The same at 1/32 of the width, two layers, heads of 16 channels."""
    _, channels, heads, kv_heads, ffn, _ = SHAPES[name]
    small_heads = channels // 32 // 16
    return ["--model=llama-nano", "--layers=2", f"--channels={channels // 32}", f"--heads={small_heads}",
            f"--kv-heads={max(1, small_heads * kv_heads // heads)}", f"--ffn-size={ffn // 32}", "--seq-len=64",
            "--batch-size=2", f"--total-batch-size={512 * cards}", "--dtype=bf16"]


def is_adapted(state):
    return "--lora=16" in STATES[state]


def tokens_per_update(state):
    return TOTAL_TOKENS["adapters" if is_adapted(state) else "full"]


def plans_of(program, options):
    """What `plan --json` says of these options; nothing where it refuses them."""
    done = subprocess.run([program, "plan", "--json", "--log-level=error", *options], capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    if done.returncode != 0:
        return []
    return json.loads(done.stdout)["plans"]


def fastest(program, row, seq_len, state):
    """Of all placements and micro-batches, the plan with the most tokens per second; None if nothing fits."""
    name, profile, gib, cards, _, _ = row
    best, total = None, tokens_per_update(state)
    for offload in OFFLOADS_OF_ADAPTERS if is_adapted(state) else OFFLOADS:
        batch = 1
        while batch * seq_len * cards <= total:
            options = [*model_options(name), f"--batch-size={batch}", f"--seq-len={seq_len}",
                       f"--max-seq-len={seq_len}", f"--total-batch-size={total}", "--dtype=bf16",
                       f"--device-profile={profile}", f"--recompute={LEVELS}",
                       f"--memory-budget={gib * GIB - RESERVE}B",
                       f"--offload={offload}", *STATES[state]]
            if cards > 1:
                options += [f"--ranks={cards}", "--zero=3"]
            fits = False
            for plan in plans_of(program, options):
                if plan["total_bytes"] > gib * GIB - RESERVE:
                    continue
                fits = True
                speed = total / plan["predicted_step_ms"] * 1e3
                if best is None or speed > 1.01 * best["tokens_per_second"]:
                    best = {"offload": offload, "recompute": plan["recompute"], "batch_size": batch,
                            "device_bytes": plan["total_bytes"], "host_bytes": plan.get("host_bytes", 0) * cards,
                            "tokens_per_second": speed, "update": plan["update"]}
            if not fits:
                break
            batch *= 2
    return best


def bound(program, row, seq_len, state, batch):
    """Tokens per second of a card with memory for everything: nothing runs again, nothing comes from the host."""
    name, profile, _, cards, _, _ = row
    total = tokens_per_update(state)
    options = [*model_options(name), f"--batch-size={batch}", f"--seq-len={seq_len}", f"--max-seq-len={seq_len}",
               f"--total-batch-size={total}", "--dtype=bf16", f"--device-profile={profile}", "--recompute=none",
               *STATES[state]]
    if cards > 1:
        options += [f"--ranks={cards}", "--zero=3"]
    return total / plans_of(program, options)[0]["predicted_step_ms"] * 1e3


def small_settings(program, device, row, found, state):
    """The row's placement at a small size; where auto chose, it has half of what it could use."""
    name, cards = row[0], row[3]
    state_options = [option.replace("--lora=16", "--lora=2") for option in STATES[state]]
    options = [*small_options(name, cards), f"--device={device}", f"--offload={found['offload']}",
               f"--update={found['update']}", *state_options]
    if cards > 1:
        options.append("--zero=3")
    if found["recompute"] != "auto":
        return [*options, f"--recompute={found['recompute']}"]
    ranks = [f"--ranks={cards}"] if cards > 1 else []
    least, most = (plans_of(program, [*options, *ranks, "--vocab-size=257", f"--recompute={level}"])[0]["total_bytes"]
                   for level in ("layer", "none"))
    return [*options, "--recompute=auto", f"--memory-budget={(least + most) // 2}B"]


def environments(ranks):
    """Of processes that are started one by one: ranks find each other at a port, and know each other by a secret."""
    common_part = {**os.environ, "OMP_NUM_THREADS": "1"}
    if ranks == 1:
        return [common_part]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        common_part |= {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]),
                        "LLMC_JOB_SECRET": os.urandom(32).hex()}
    return [common_part | {"RANK": str(rank)} for rank in range(ranks)]


def small_run(program, device, row, found, state):
    """What is planned of the row's placement at a small size, and what a run of it took: bytes of the device, of the
    arena at most, and of the host; of rank 0. Of the latter None if it failed, with its last words."""
    ranks = row[3]
    options = small_settings(program, device, row, found, state)
    plans = plans_of(program, [*options, "--vocab-size=257", *([f"--ranks={ranks}"] if ranks > 1 else [])])
    if not plans:
        return None, "no plan"
    planned = [plans[0]["total_bytes"], plans[0]["arena_bytes"], plans[0]["host_bytes"]]
    with tempfile.TemporaryDirectory() as folder:
        text = pathlib.Path(folder) / "text.txt"
        text.write_text("the same words once more, to be read byte by byte\n" * 400)
        command = [program, *options, f"--data={text}", "--steps=2", "--val-every=0", "--sample-length=0",
                   f"--output-dir={folder}/run", "--log-level=debug"]
        jobs = []
        for rank, environment in enumerate(environments(ranks)):
            with open(f"{folder}/err-{rank}", "w") as err:
                jobs.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=err, env=environment))
        codes = [job.wait() for job in jobs]
        words = pathlib.Path(folder, "err-0").read_text()
        if any(codes):
            return planned, words.strip()[-200:]
        lines = pathlib.Path(folder, "run", "metrics.jsonl").read_text().splitlines()
    allocated = [json.loads(line)["memory_bytes"] for line in lines if "memory_bytes" in line]
    used = re.search(r"used +(\d+) bytes of the arena, (\d+) of host memory", words)
    return planned, [allocated[-1], int(used[1]), int(used[2])] if used else words.strip()[-200:]


def programs():
    """The binary under test, and the one whose kernels run on the executor, with their devices."""
    own = os.environ.get("TRAIN_GPT", str(root / "train_gpt"))
    if not os.access(own, os.X_OK):
        common.fail(2, f"no program '{own}'; run make, or set TRAIN_GPT")
    found = [(own, "cpu")]
    executor = os.environ.get("TRAIN_GPT_CUDA_ON_CPU", str(root / "build/release/train_gpt_cuda_on_cpu"))
    if os.access(executor, os.X_OK):
        found.append((executor, "cuda"))
    return found


def run_small(row, result, tried):
    """Runs what was found; notes a miss."""
    result["runs"] = []
    for program, device in tried:
        if device == "cuda" and row[3] > 1:  # The executor shows one card, and NCCL wants one a rank.
            continue
        planned, taken = small_run(program, device, row, result["found"], result["state"])
        result["runs"].append({"device": device, "planned": planned, "taken": taken})
        if planned != taken:
            result["miss"] = f"bytes of the small run on {device}: {planned} planned, {taken} taken"


def measure(row, seq_len, state, tried, with_runs):
    found = fastest(tried[0][0], row, seq_len, state)
    name, profile, gib, cards, peer, by = row
    result = {"model": name, "profile": profile, "cards": cards, "card_gib": gib, "seq_len": seq_len, "state": state,
              "peer_tokens_per_second": peer, "peer": by, "found": found, "runs": []}
    if found is None:
        result["miss"] = "does not fit"
        return result
    result["bound_tokens_per_second"] = bound(tried[0][0], row, seq_len, state, found["batch_size"])
    if peer is not None and found["tokens_per_second"] < peer:
        result["miss"] = "slower than the peer"
    if with_runs:
        run_small(row, result, tried)
    return result


def again(folder, only, tried, records):
    """Small runs of all rows that are in the results folder; how many went wrong."""
    wrong = 0
    for name in ("reach", "reach_finetune"):
        results = json.loads(pathlib.Path(folder, f"{name}.json").read_text())
        for result in results:
            if only not in result["model"] and only not in result["profile"]:
                continue
            if str(result.get("miss")).startswith("bytes"):
                del result["miss"]
            speed_miss = result.pop("miss", None)
            words = f"{result['model']} on {result['profile']}, T {result['seq_len']}, {result['state']}"
            row = [result[key] for key in ("model", "profile", "card_gib", "cards", "peer_tokens_per_second", "peer")]
            if result["found"] is None:
                continue
            run_small(row, result, tried)
            print(f"not ok {words}: {result['miss']}" if "miss" in result else f"ok {words}", flush=True)
            wrong += "miss" in result
            if speed_miss is not None:
                result.setdefault("miss", speed_miss)
        if records:
            publish(folder, name, results)
    return wrong


def publish(folder, name, results):
    """The results as JSON and as a table, below what they mean."""
    path = pathlib.Path(folder) / f"{name}.md"
    head = path.read_text().split("| model |")[0]
    common.write(str(path), head + table(results))
    common.write(os.path.join(folder, f"{name}.json"), json.dumps(results, indent=1) + "\n")


def table(results):
    lines = ["| model | card | T | state | placement | device GB | host GB | tokens/s, predicted | bound "
             "| published | small runs |",
             "|---|---|---:|---|---|---:|---:|---:|---:|---|---|"]
    for r in results:
        found = r["found"]
        card = f"{r['cards']} x {r['profile']}" if r["cards"] > 1 else r["profile"]
        head = f"| {r['model']} | {card}, {r['card_gib']} GiB | {r['seq_len']} | {r['state']} "
        if found is None:
            lines.append(head + "| **does not fit** | | | | | | |")
            continue
        places = (f"level {found['recompute']}, {found['batch_size']} rows, {found['offload']}, "
                  f"update {found['update']}")
        peer = f"{r['peer_tokens_per_second']} ({r['peer']})" if r["peer_tokens_per_second"] else r["peer"]
        runs = ", ".join(f"{run['device']} equal" if run["planned"] == run["taken"] else f"{run['device']} **MISS**"
                         for run in r["runs"]) or "not run"
        mark = " **MISS**" if r.get("miss") == "slower than the peer" else ""
        lines.append(f"{head}| {places} | {found['device_bytes'] / 1e9:.1f} | {found['host_bytes'] / 1e9:.1f} "
                     f"| {found['tokens_per_second']:.0f}{mark} | {r['bound_tokens_per_second']:.0f} "
                     f"| {peer} | {runs} |")
    return "\n".join(lines) + "\n"


def head_of(finetune, version):
    total = TOTAL_TOKENS["adapters" if finetune else "full"]
    formats = ("`--lora=16` on every matrix, the base in bf16 (*lora*) or as `--base-format` says" if finetune
               else "*small*: `" + " ".join(STATES["small"]) + "`")
    return (f"# {'Adapters' if finetune else 'Full training'} by plan\n\n"
            f"{datetime.date.today()}, {version}, `dev/bench/reach.py{' --finetune' if finetune else ''}`. Updates of "
            f"{total} tokens, bf16, the\ncard less 1 GiB; device and host GB = 1e9 bytes (host: of all ranks);\n"
            f"{formats}.\n"
            "Speeds are predictions from data sheets; nothing here ran on such a card. *Bound*: the same micro-batch\n"
            "with nothing repeated and nothing moved, which no plan can beat. Small runs: the same placement at 1/32\n"
            "of the width and two layers, on as many ranks; *equal*: bytes planned are those that are allocated, and\n"
            "those of arena and host memory that are used at most.\n\n")


def main():
    parser = common.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(root / "dev/bench/results"), metavar="FOLDER")
    parser.add_argument("--only", default="", metavar="WORD", help="only rows with this word in model or card")
    parser.add_argument("--no-runs", action="store_true", help="plans alone")
    parser.add_argument("--finetune", action="store_true", help="adapters instead of full training")
    parser.add_argument("--again", action="store_true", help="small runs of the rows in the results folder, alone")
    parser.add_argument("--record", action="store_true", help="the same, written there")
    options = parser.parse_args()
    tried = programs()
    if options.again or options.record:
        return 1 if again(options.out, options.only, tried, options.record) else 0
    version = subprocess.run([tried[0][0], "--version"], capture_output=True, text=True, check=False).stdout
    results = []
    rows = [(row[:6], [row[6]]) for row in ROWS_OF_ADAPTERS] if options.finetune \
        else [(row, [state for state in STATES if not is_adapted(state)]) for row in ROWS]
    for row, states in rows:
        if options.only not in row[0] and options.only not in row[1]:
            continue
        for seq_len in (1024, 4096):
            for state in states:
                results.append(measure(row, seq_len, state, tried, not options.no_runs))
                common.say(table(results[-1:]).splitlines()[-1])
    if not results:
        common.fail(2, f"--only={options.only}: no row has that")
    text = table(results)
    print(text, end="")
    if not options.only:
        head = head_of(options.finetune, version.splitlines()[0])
        name = "reach_finetune" if options.finetune else "reach"
        common.write(os.path.join(options.out, f"{name}.md"), head + text)
        common.write(os.path.join(options.out, f"{name}.json"), json.dumps(results, indent=1) + "\n")
    misses = [r for r in results if "miss" in r]
    for r in misses:
        common.say(f"{r['model']} on {r['profile']}, T {r['seq_len']}, {r['state']}: {r['miss']}")
    return 1 if misses else 0


common.run(main)
