"""Trains the little MobileNet of the quick start and writes digits_mobilenet.onnx, digit.png and
digits_labels.txt beside this file.

Data: the handwritten digits that ship inside scikit-learn (1797 pictures of 8x8, 17 grey levels),
enlarged to 32x32 with 8-bit grey values. The network takes them as float 1x1x32x32, normalised as
(grey - 128) / 64, and gives ten logits. BatchNormalization stays in the exported file, as it
comes from a training framework, so that compiling it shows what mdlc folds.

Run it from the repository: python examples/train_digits.py (under a minute; needs
`pip install '.[torch,test]'`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

FOLDER = Path(__file__).parent
SIZE = 32
MEAN, STD = 128.0, 64.0
# Output channels and stride of the depthwise separable blocks.
BLOCKS = ((24, 1), (48, 2), (48, 1), (96, 2), (96, 1), (128, 2))


def separable(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    """A depthwise separable block: 3x3 depthwise, then 1x1, each with BN and ReLU6."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_in, 3, stride, 1, groups=channels_in, bias=False),
        nn.BatchNorm2d(channels_in),
        nn.ReLU6(),
        nn.Conv2d(channels_in, channels_out, 1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU6(),
    )


class DigitsMobileNet(nn.Module):
    """MobileNetV1 in small: [N, 1, 32, 32] -> [N, 10] logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6()
        )
        channels = 12
        blocks = []
        for channels_out, stride in BLOCKS:
            blocks.append(separable(channels, channels_out, stride))
            channels = channels_out
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of normalised pictures."""
        return self.classifier(self.pool(self.blocks(self.stem(x))).flatten(1))


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """All digits as uint8 [1797, 32, 32] (white on black) and their classes."""
    data = load_digits()
    small = np.round(data.images * (255 / 16)).astype(np.uint8)
    large = [
        np.asarray(Image.fromarray(p).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for p in small
    ]
    return np.stack(large), data.target


def normalised(images: np.ndarray) -> Tensor:
    """What the network takes: float [N, 1, 32, 32]."""
    return torch.from_numpy((images[:, None].astype(np.float32) - MEAN) / STD)


def shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """Training pictures moved by up to two pixels each way, and noisy."""
    dy, dx = torch.randint(-2, 3, (2,), generator=generator).tolist()
    return torch.roll(x, (dy, dx), (2, 3)) + 0.1 * torch.randn(x.shape, generator=generator)


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int = 40, batch: int = 64) -> None:
    """AdamW with a one-cycle learning rate."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    steps = epochs * (len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=steps)
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(len(x), generator=generator)
        total = 0.0
        for start in range(0, len(x) - batch + 1, batch):
            chosen = order[start : start + batch]
            loss = nn.functional.cross_entropy(model(shifted(x[chosen], generator)), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3}: loss {total / (len(x) // batch):.4f}")


def main() -> None:
    """Trains, reports the accuracy on the test part, exports."""
    torch.manual_seed(0)
    images, classes = pictures()
    train_x, test_x, train_y, test_y = train_test_split(
        images, classes, test_size=0.25, random_state=0, stratify=classes
    )
    model = DigitsMobileNet()
    train(model, normalised(train_x), torch.from_numpy(train_y))
    model.eval()
    with torch.no_grad():
        answers = model(normalised(test_x)).argmax(1).numpy()
    print(f"test accuracy: {np.mean(answers == test_y):.4f} on {len(test_y)} pictures")

    path = FOLDER / "digits_mobilenet.onnx"
    torch.onnx.export(
        model,
        (torch.zeros(1, 1, SIZE, SIZE),),
        path,
        dynamo=False,
        training=torch.onnx.TrainingMode.PRESERVE,  # of eval(): BatchNormalization is kept
        do_constant_folding=False,
        opset_version=17,
        input_names=["image"],
        output_names=["logits"],
    )
    onnx.checker.check_model(onnx.load(path), full_check=True)
    seven = next(i for i, (a, t) in enumerate(zip(answers, test_y, strict=True)) if a == t == 7)
    Image.fromarray(test_x[seven]).save(FOLDER / "digit.png")
    (FOLDER / "digits_labels.txt").write_text("".join(f"{digit}\n" for digit in range(10)))
    print(f"{path.name}: {path.stat().st_size} bytes; digit.png shows a 7")


if __name__ == "__main__":
    main()
