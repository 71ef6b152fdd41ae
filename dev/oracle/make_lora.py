#!/usr/bin/env python3
"""Writes tests/golden/lora: adapters trained by PEFT, for tests/run/test_lora.cpp.

    python3 -m venv VENV && VENV/bin/pip install -r dev/oracle/lora.txt
    VENV/bin/python dev/oracle/make_lora.py

Per case: the adapter before and after four AdamW updates, and expected.safetensors with the first update's gradients
and the logits of the trained model. An update has two micro-batches whose scored tokens differ in number; its loss is
the sum over both divided by the number of both. expected_lora.json has the token ids, labels and losses.
"""
import json
import pathlib
import shutil

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/lora"
VOCABULARY, ROWS, LENGTH, UPDATES = 40, 2, 10, 4
OPTIMIZER = {"lr": 0.01, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01}
LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = {
    "llama_all": dict(r=3, lora_alpha=6, target_modules=LLAMA),
    "llama_qv_rslora": dict(r=4, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "v_proj"]),
    "llama_head": dict(r=2, lora_alpha=2, target_modules=["k_proj", "down_proj"], modules_to_save=["lm_head"]),
    "llama_dora": dict(r=2, lora_alpha=4, use_dora=True, target_modules=["q_proj", "down_proj"]),
    "gpt2_all": dict(r=3, lora_alpha=6, fan_in_fan_out=True, target_modules=["c_attn", "c_proj", "c_fc"]),
    "gpt2_bias": dict(r=2, lora_alpha=8, fan_in_fan_out=True, bias="lora_only", target_modules=["c_attn", "c_fc"]),
}


def base_model(family):
    if family == "llama":
        config = LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=24, intermediate_size=36, num_hidden_layers=2, num_attention_heads=3,
            num_key_value_heads=1, max_position_embeddings=16, tie_word_embeddings=False, attn_implementation="eager")
        model = LlamaForCausalLM(config)
    else:
        config = GPT2Config(
            vocab_size=VOCABULARY, n_positions=16, n_embd=12, n_layer=2, n_head=3, bos_token_id=0, eos_token_id=1,
            resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, attn_implementation="eager")
        model = GPT2LMHeadModel(config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            is_scale = name.endswith("weight") and parameter.dim() == 1
            parameter.copy_((1 if is_scale else 0) + 0.15 * torch.randn(parameter.shape))
    return model.eval()  # No dropout.


def micro_batches():
    """[update][micro-batch] -> ids and labels of ROWS sequences."""
    random = torch.Generator().manual_seed(2)
    updates = []
    for _ in range(UPDATES):
        update = []
        for unscored in (1, 7):
            ids = torch.randint(VOCABULARY, (ROWS, LENGTH), generator=random)
            labels = ids.clone()
            labels[:, :unscored] = -100
            labels[0, LENGTH - 1] = -100
            update.append((ids, labels))
        updates.append(update)
    return updates


def losses_of(model, ids, labels):
    logits = model(input_ids=ids).logits[:, :-1]
    targets = labels[:, 1:]
    losses = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=-100, reduction="none")
    return losses.sum(), int((targets != -100).sum())


def keep_only_the_adapter(folder):
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["target_modules"] = sorted(config["target_modules"])  # A set, in any order.
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def make_case(name, settings, data):
    model = base_model(name.split("_")[0])
    model.name_or_path = "base_" + name.split("_")[0]
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **settings)).eval()
    trained = {n: p for n, p in sorted(model.named_parameters()) if p.requires_grad}
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter_name, parameter in trained.items():
            if "lora_" in parameter_name:
                parameter.copy_(0.2 * torch.randn(parameter.shape))
    model.save_pretrained(OUT / name / "before")
    optimizer = torch.optim.AdamW(trained.values(), **OPTIMIZER)
    losses, gradients = [], {}
    for update in data:
        optimizer.zero_grad()
        sums, counts = zip(*(losses_of(model, *batch) for batch in update))
        loss = sum(sums) / sum(counts)
        loss.backward()
        losses.append(loss.item())
        gradients = gradients or {"grad." + n.replace(".default", ""): p.grad.clone() for n, p in trained.items()}
        optimizer.step()
    model.save_pretrained(OUT / name / "after")
    ids = data[0][0][0]
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    tensors = gradients | {"probe_ids": ids, "adapted_logits": logits.contiguous()}
    save_file(tensors, OUT / name / "expected.safetensors")
    for part in ("before", "after"):
        keep_only_the_adapter(OUT / name / part)
    return {"losses": losses}


def main():
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    for family in ("llama", "gpt2"):
        base_model(family).save_pretrained(OUT / f"base_{family}")
        (OUT / f"base_{family}/generation_config.json").unlink(missing_ok=True)
    data = micro_batches()
    cases = {name: make_case(name, settings, data) for name, settings in CASES.items()}
    steps = [[{"ids": ids.tolist(), "labels": labels.tolist()} for ids, labels in update] for update in data]
    text = json.dumps({"optimizer": OPTIMIZER, "steps": steps, "cases": cases})
    (OUT / "expected_lora.json").write_text(text + "\n")


main()
