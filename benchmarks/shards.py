"""A round's shard: 5,000 candidates written to one Parquet file and read back, beside a folder of PNG files."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from benchmarks._frame import Measured, interleaved, main
from data.records import Candidate, Verdict, Vote
from data.shards import candidate_images, encode_png, read_candidates, write_candidates


def candidates(n: int) -> list[Candidate]:
    """n judged 28×28 candidates with two votes each; noise, which no compression helps."""
    pixels = torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    at = "2026-01-01T00:00:00Z"
    return [
        Candidate(
            f"{i:06d}",
            round=1,
            source="human",
            image=encode_png(pixels[i]),
            intended=i % 10,
            annotator=f"annotator-{i % 7}@localhost",
            at=at,
            answer=(i + 1) % 10,
            votes=(Vote("one@localhost", i % 10, 2 * i, at), Vote("two@localhost", i % 10, 2 * i + 1, at)),
            verdict=Verdict.VERIFIED,
        )
        for i in range(n)
    ]


def measure(quick: bool) -> list[Measured]:
    """Candidates a second, one thread."""
    torch.set_num_threads(1)
    n, made = (500 if quick else 5000), candidates(500 if quick else 5000)
    with tempfile.TemporaryDirectory() as name:
        shard, folder = Path(name) / "candidates.parquet", Path(name) / "png"
        folder.mkdir()

        def write_folder() -> None:
            for c in made:
                (folder / f"{c.key}.png").write_bytes(c.image)

        variants = {
            "write the shard": lambda: write_candidates(shard, made),
            "read the shard": lambda: read_candidates(shard),
            "read and decode": lambda: candidate_images(read_candidates(shard), 1, [str(i) for i in range(10)]),
            "write a PNG file each": write_folder,
            "read a PNG file each": lambda: [path.read_bytes() for path in sorted(folder.iterdir())],
        }
        order = ("write the shard", "write a PNG file each", "read the shard", "read a PNG file each")
        variants = {key: variants[key] for key in (*order, "read and decode")}
        seconds = interleaved(variants, repeats=2 if quick else 7)
    targets = {"write the shard": 5_000, "read the shard": 5_000, "read and decode": 2_000}
    return [Measured(key, n / spent, "candidates/s", targets.get(key), "higher") for key, spent in seconds.items()]


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
