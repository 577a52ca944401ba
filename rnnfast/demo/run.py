# SPDX-License-Identifier: Apache-2.0
"""`rnnfast demo`: train, judge on held-out text, sample, race torch.nn.LSTM, write the report."""

import argparse
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from rnnfast.demo import report
from rnnfast.demo.text import Corpus, compressed_bits, entropy_bits, read_text, unigram_bits
from rnnfast.demo.training import Settings, Trainer, held_out_bits
from rnnfast.runs import CHECKPOINT, Interrupt, Stopped, check_same, new_folder, resumed_folder


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings that the command line asks for."""
    changes = {k: v for k in asdict(Settings()) if (v := getattr(args, k, None)) is not None}
    if args.quick:
        changes = {"steps": 30, "evaluate_every": 15, "hidden": 64, "chunk": 32, "batch": 16} | changes
    return replace(Settings(), **changes)


def train(trainer: Trainer, folder: Path, minutes: float) -> None:
    """Runs to the last step or the time limit; the checkpoint is written at each evaluation and at the end."""
    update, close = report.progress_bar(trainer, disable=not sys.stderr.isatty() and trainer.settings.steps < 100)
    deadline = time.monotonic() + 60 * minutes
    with Interrupt() as interrupt:

        def on_step(t: Trainer, bits: float) -> None:
            update(t, bits)
            if t.progress.step % t.settings.evaluate_every == 0:
                t.save(folder / CHECKPOINT)
            if interrupt.asked:
                t.save(folder / CHECKPOINT)
                raise Stopped

        try:
            if not trainer.run(on_step, deadline):
                print(f"stopped at the time limit of {minutes:g} minutes; --resume goes on")
        finally:
            close()
    trainer.save(folder / CHECKPOINT)


def judge(trainer: Trainer, repeats: int) -> dict[str, Any]:
    """Everything the report says, from the best model on held-out text."""
    corpus, p = trainer.corpus, trainer.progress
    last = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.model.load_state_dict(trainer.best)
    bits = held_out_bits(trainer.model, corpus.held_out)
    generator = torch.Generator().manual_seed(trainer.settings.seed)
    sample = trainer.model.generate(corpus.held_out[:50], 400, 0.7, generator=generator)
    results = {
        "bits_per_char": bits,
        "unigram_bits_per_char": unigram_bits(corpus.train, corpus.held_out, corpus.symbols),
        "unigram_entropy_of_held_out": entropy_bits(corpus.held_out_text),
        "compressors_bits_per_char": compressed_bits(corpus.held_out_text),
        "held_out_characters": corpus.held_out.numel(),
        "training_characters": corpus.train.numel(),
        "steps": p.step,
        "training_seconds": p.seconds,
        "characters_per_second": p.step * trainer.settings.batch * trainer.settings.chunk / max(p.seconds, 1e-9),
        "held_out": p.held_out,
        "loss_bits": p.loss_bits,
        "gradient_norm": p.gradient_norm,
        "sample": corpus.decode(corpus.held_out[:50]) + "|" + corpus.decode(sample),
        "race": report.race(trainer, repeats),
    }
    trainer.model.load_state_dict(last)
    return results


def print_results(results: dict[str, Any], folder: Path) -> None:
    """The closing summary; its last line is the model's bits per char."""
    race = results["race"]
    print("\nsample (given text | generated):\n")
    print("    " + results["sample"].replace("\n", "\n    "))
    print("\nthe same training step, in turns (median, quartiles):")
    for name in ("rnnfast", "torch.nn"):
        low, high = race[name]["quartiles_ms"]
        print(f"    {name + '.LSTM':14} {race[name]['median_ms']:8.2f} ms  ({low:.2f} .. {high:.2f})")
    print(f"    ratio          {race['ratio']:8.2f}     torch.nn / rnnfast, {race['repeats']} repeats each")
    print(
        f"\ntrained {results['steps']} updates in {results['training_seconds']:.1f} s "
        f"({results['characters_per_second'] / 1e3:.0f}k characters/s); report in {folder}/"
    )
    print(f"held-out text ({results['held_out_characters']} characters), in bits per character:")
    print(f"    unigram model  {results['unigram_bits_per_char']:.3f}   (entropy of its own frequencies "
          f"{results['unigram_entropy_of_held_out']:.3f})")  # fmt: skip
    for name, bits in results["compressors_bits_per_char"].items():
        print(f"    {name:14} {bits:.3f}   (this part alone)")
    print(f"    rnnfast LSTM   {results['bits_per_char']:.3f} bits per char", flush=True)


def demo(args: argparse.Namespace) -> int:
    """The command. Raises InputError for what the user can mend."""
    out = Path(args.out)
    corpus = Corpus.of(read_text(Path(args.text) if args.text else None))
    if args.resume:
        folder = resumed_folder(out, args.name, "demo")
        trainer = Trainer.load(folder / CHECKPOINT, corpus)
        saved = asdict(trainer.settings)
        given = {k: v for k in saved if k != "steps" and (v := getattr(args, k, None)) is not None}
        check_same(folder, given, saved, "--steps and --minutes")
        if args.steps is not None:
            trainer.settings = replace(trainer.settings, steps=args.steps)
        print(f"resuming {folder} at update {trainer.progress.step} of {trainer.settings.steps}")
    else:
        folder = new_folder(out, args.name, (f"demo-{i}" for i in range(1, 10**6)))
        trainer = Trainer(corpus, settings_of(args))
        print(f"training on {corpus.train.numel()} characters, {corpus.symbols} symbols; report in {folder}/")
    try:
        train(trainer, folder, args.minutes)
    except Stopped:
        print(f"interrupted at update {trainer.progress.step}; saved. Go on with: "
              f"rnnfast demo --resume --name {folder.name} --out {out}", file=sys.stderr)  # fmt: skip
        return 130
    results = judge(trainer, repeats=3 if args.quick else 15)
    report.write_json(folder / "report.json", trainer.settings, results)
    references = {"unigram": results["unigram_bits_per_char"], **results["compressors_bits_per_char"]}
    report.draw(folder / "loss.png", trainer, references)
    print_results(results, folder)
    return 0
