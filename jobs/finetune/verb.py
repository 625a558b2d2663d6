"""`avel finetune`: an encoder's towers trained further on a data set's own pairs of frames and audio."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.cli.dataset_options import add_media, add_root
from jobs.cli.recipe_options import add_set, add_weights

HELP = "train an encoder further on frames and audio that belong together; gives a checkpoint for `avel extract`"
EXAMPLES = """\
examples:
  avel finetune audioclip --dataset ave --root AVE_Dataset --out runs/audioclip-ave
  avel finetune audioclip --dataset ave --root AVE_Dataset --out runs/big --precision bfloat16 --batch 512 --piece 64
                                             a large batch in pieces: its exact gradient in the memory of one piece
  avel finetune audioclip --dataset ave --root AVE_Dataset --out runs/audio --augment --freeze audio.fbsp. visual.
                                             few videos: changed a little in every epoch; only the audio tower learns
  avel finetune audioclip --dataset ave --root AVE_Dataset --out runs/audioclip-ave --dry-run
  avel extract --dataset ave --root AVE_Dataset --recipe audioclip-1s --as audioclip-ave-1s \\
      --weights runs/audioclip-ave/weights.safetensors --store features
The same command again goes on after a kill, from the last whole epoch, and ends as the undisturbed run would. Over a
finished run it says so; with other settings it is refused, and RUN stays as it is. Videos are decoded once, into
RUN/pairs. TensorBoard: tensorboard --logdir RUN/tensorboard.
Exit status: 0 trained; 1 failed; 2 bad arguments; 130/143 stopped by SIGINT/SIGTERM after the epoch in hand.
"""

# Frames kept of each second for the pairs; a step takes one of them by chance.
FRAMES = 2
# AudioCLIP's learnt time-frequency transform. Its splines' order m divides their argument, so that near the initial
# m = 0 its gradient is up to 3e10 where all others' together is 1e2 (measured on a fresh small tower): clipped
# together with it, the rest of the network learns nothing.
FROZEN = ("audio.fbsp.",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("encoder", help="one that can be fine-tuned: audioclip")
    data = parser.add_argument_group("what")
    data.add_argument("--dataset", required=True, metavar="NAME", help="ave, ovavebench, unav100, synthetic")
    add_root(data, required=True)
    add_media(data)
    data.add_argument("--out", required=True, type=Path, metavar="RUN", help="folder of this run; made if absent")
    how = parser.add_argument_group("how")
    how.add_argument("--epochs", type=int, default=10, help="default: %(default)s")
    how.add_argument("--batch", type=int, default=64, help="positive pairs a step (default: %(default)s)")
    how.add_argument(
        "--piece", type=int, default=32, help="rows that go through the network at once (default: %(default)s)"
    )
    how.add_argument("--queue", type=int, default=0, help="features of earlier steps kept as negatives (default: 0)")
    how.add_argument(
        "--background", type=float, default=0.25, help="background seconds a pair, as negatives (default: %(default)s)"
    )
    how.add_argument("--lr", type=float, default=1e-5, help="AdamW's learning rate (default: %(default)s)")
    how.add_argument("--weight-decay", type=float, default=1e-2, help="default: %(default)s")
    how.add_argument(
        "--batch-norm", choices=("frozen", "train"), default="frozen", help="statistics (default: %(default)s)"
    )
    how.add_argument(
        "--augment", action="store_true", help="change frames and audio a little by chance; for small data sets"
    )
    how.add_argument(
        "--freeze",
        nargs="*",
        default=list(FROZEN),
        metavar="START",
        help="parameters that stay as they are, by the start of their names; bare: none (default: "
        f"{' '.join(FROZEN)}, the audio tower's time-frequency transform)",
    )
    how.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="default: %(default)s")
    how.add_argument("--frames", type=int, default=FRAMES, help="kept of each second (default: %(default)s)")
    how.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    how.add_argument("--workers", type=int, default=2, help="decoders, for the pairs (default: %(default)s)")
    add_set(how)
    add_weights(how)
    parser.add_argument("--dry-run", action="store_true", help="print what would be done")
